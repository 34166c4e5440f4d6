-- The event log: services insert batches of events in the transaction of the change they tell of; consumers read
-- them by position. Positions are given by number_batches once a batch is visible, one caller at a time: reading by
-- id would skip a batch whose transaction commits late, and reading by transaction id would let one long transaction
-- anywhere in the database hold the log back.

CREATE TABLE batch (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    position    bigint,
    -- The role that wrote it; nobody may write another (a service's role is granted the columns below it).
    source      text        NOT NULL DEFAULT current_user,
    types       text[]      NOT NULL,
    events      bytea       NOT NULL,
    event_count integer     NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT a_batch_has_events CHECK (event_count > 0)
);
CREATE UNIQUE INDEX batch_position ON batch (position) WHERE position IS NOT NULL;
CREATE INDEX batch_unnumbered ON batch (id) WHERE position IS NULL;
-- Uncompressed: a batch is written once and read a few times, and compressing it would cost more than its WAL.
ALTER TABLE batch ALTER COLUMN events SET STORAGE EXTERNAL;

CREATE TABLE log_end (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    position bigint  NOT NULL
);
INSERT INTO log_end (position) VALUES (0);

CREATE TABLE consumer (
    name       text        PRIMARY KEY,
    position   bigint      NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- What a consumer could not handle through the events' own fault, until it is replayed. `source` is the role that wrote
-- the batch; `events` are one event, or the whole batch where it could not be read.
CREATE TABLE dead_letter (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer            text        NOT NULL,
    event_id            uuid        NOT NULL,
    position            bigint      NOT NULL,
    source              text        NOT NULL,
    events              bytea       NOT NULL,
    cause               text        NOT NULL,
    failed_at           timestamptz NOT NULL DEFAULT now(),
    replay_requested_at timestamptz,
    CONSTRAINT one_dead_letter_per_event_and_consumer UNIQUE (consumer, event_id)
);
CREATE INDEX dead_letter_to_replay ON dead_letter (consumer, id) WHERE replay_requested_at IS NOT NULL;

-- Gives positions to visible batches, in the order in which they were inserted. Returns how many; -1 when another
-- caller is at it. The end's row lock is the queue: whoever has it commits before the next one reads.
CREATE FUNCTION number_batches(batches_max integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = event_log, pg_temp AS
$$
DECLARE
    last_position bigint;
    numbered      integer;
BEGIN
    -- Looked at first, because the row lock below costs a transaction id and a flush.
    IF NOT EXISTS (SELECT FROM batch WHERE position IS NULL) THEN
        RETURN 0;
    END IF;
    SELECT position INTO last_position FROM log_end FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN -1;
    END IF;
    WITH pending AS (
        SELECT id, row_number() OVER (ORDER BY id) AS n
          FROM (SELECT id FROM batch WHERE position IS NULL ORDER BY id LIMIT batches_max) AS oldest
    )
    UPDATE batch SET position = last_position + pending.n FROM pending WHERE batch.id = pending.id;
    GET DIAGNOSTICS numbered = ROW_COUNT;
    IF numbered > 0 THEN
        UPDATE log_end SET position = last_position + numbered;
    END IF;
    RETURN numbered;
END
$$;

-- Numbers what is new, then tells what stands after a position: the log's end, whether there is a batch with one of these
-- types, and whether a dead letter of this consumer is to be replayed. One call for what every consumer asks all the time.
CREATE FUNCTION look_after(
    seen bigint, wanted text[], consumer_name text,
    OUT numbered integer, OUT last bigint, OUT has_mine boolean, OUT has_replays boolean)
    LANGUAGE plpgsql SET search_path = event_log, pg_temp AS
$$
BEGIN
    numbered := number_batches(1000);
    SELECT position INTO last FROM log_end;
    has_mine := last > seen AND EXISTS (SELECT FROM batch WHERE position > seen AND types && wanted);
    has_replays := EXISTS (SELECT FROM dead_letter
                            WHERE consumer = consumer_name AND replay_requested_at IS NOT NULL);
END
$$;

-- Drops batches that every consumer has read and that are older than the retention.
CREATE FUNCTION drop_old_batches(older_than timestamptz) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = event_log, pg_temp AS
$$
    WITH dropped AS (
        DELETE FROM batch
         WHERE created_at < older_than
           AND position <= (SELECT min(position) FROM consumer)
        RETURNING 1
    )
    SELECT count(*) FROM dropped
$$;

-- How many events are set aside, over all consumers.
CREATE FUNCTION count_dead_letters() RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = event_log, pg_temp AS
$$
    SELECT count(*) FROM dead_letter
$$;

DO $$
BEGIN
    -- Roles belong to the server, not to the database: another database of this server may have made it.
    CREATE ROLE payflow_event_consumer NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
GRANT USAGE ON SCHEMA event_log TO payflow_event_consumer;
GRANT SELECT ON batch, log_end TO payflow_event_consumer;
GRANT SELECT, INSERT, UPDATE (position, updated_at) ON consumer TO payflow_event_consumer;
GRANT SELECT, INSERT (consumer, event_id, position, source, events, cause), DELETE,
      UPDATE (cause, failed_at, replay_requested_at) ON dead_letter TO payflow_event_consumer;
REVOKE EXECUTE ON FUNCTION number_batches(integer), look_after(bigint, text[], text), drop_old_batches(timestamptz), count_dead_letters() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION number_batches(integer), look_after(bigint, text[], text) TO payflow_event_consumer;

-- A consumer has the name of its service, and touches nobody else's position and dead letters.
ALTER TABLE consumer ENABLE ROW LEVEL SECURITY;
CREATE POLICY a_consumer_moves_its_own_position ON consumer TO payflow_event_consumer
    USING (current_user = 'payflow_' || name) WITH CHECK (current_user = 'payflow_' || name);
ALTER TABLE dead_letter ENABLE ROW LEVEL SECURITY;
CREATE POLICY a_consumer_keeps_its_own_dead_letters ON dead_letter TO payflow_event_consumer
    USING (current_user = 'payflow_' || consumer) WITH CHECK (current_user = 'payflow_' || consumer);
