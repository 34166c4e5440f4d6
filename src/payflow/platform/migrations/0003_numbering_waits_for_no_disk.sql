-- Giving batches their positions needs no flush of its own: whoever acts on a position commits later, which flushes the
-- numbering before it; and a numbering that a crash takes back, which nobody acted on, is simply made again.

CREATE OR REPLACE FUNCTION look_after(
    seen bigint, wanted text[], consumer_name text,
    OUT numbered integer, OUT last bigint, OUT has_mine boolean, OUT has_replays boolean)
    LANGUAGE plpgsql SET search_path = event_log, pg_temp AS
$$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    numbered := number_batches(1000);
    SELECT position INTO last FROM log_end;
    has_mine := last > seen AND EXISTS (SELECT FROM batch WHERE position > seen AND types && wanted);
    has_replays := EXISTS (SELECT FROM dead_letter
                            WHERE consumer = consumer_name AND replay_requested_at IS NOT NULL);
END
$$;
