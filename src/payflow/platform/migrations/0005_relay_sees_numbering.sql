-- The relay is told whether it could number what is new, as consumers are: -1 when another session was numbering. It then
-- looks again at once, where it would have waited for the next event to wake it.

DROP FUNCTION look_after_relay();
CREATE FUNCTION look_after_relay(
    OUT done bigint, OUT last bigint, OUT waits_since timestamptz, OUT has_retries boolean, OUT numbered integer)
    LANGUAGE plpgsql SET search_path = event_log, pg_temp AS
$$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    numbered := number_batches(1000);
    SELECT position INTO done FROM relay;
    SELECT position INTO last FROM log_end;
    SELECT created_at INTO waits_since FROM batch WHERE position > done ORDER BY position LIMIT 1;
    has_retries := EXISTS (SELECT FROM dead_letter WHERE consumer = 'relay' AND replay_requested_at IS NOT NULL);
END
$$;
REVOKE EXECUTE ON FUNCTION look_after_relay() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION look_after_relay() TO payflow_event_relay;
