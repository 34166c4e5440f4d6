-- Events may go on to Kafka: a relay publishes the batches in the order of their positions, and consumers read there. This
-- table is then the outbox. Also: replays of a part of the log, and dead letters that somebody discards with a reason.

-- How far the relay has come: every batch up to `position` is in Kafka. `is_on`: consumers read from Kafka, not from here.
CREATE TABLE relay (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    position   bigint      NOT NULL,
    is_on      boolean     NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO relay (position, is_on) VALUES (0, false);

-- The events from Kafka whose effect a consumer has had: written in the transaction of the effect, so that an event that
-- comes again has none.
CREATE TABLE inbox (
    consumer   text        NOT NULL,
    event_id   uuid        NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT an_event_has_its_effect_once PRIMARY KEY (consumer, event_id)
);
-- Rows come in the order of time and are looked for by it only to be forgotten: no index costs less.
CREATE INDEX inbox_handled_at ON inbox USING brin (handled_at);
CREATE INDEX batch_created_at ON batch USING brin (created_at);

-- A part of the log that a consumer is to be handed again. `key` narrows it to one payment (or whatever the topic's key
-- is). `progress` is the reader's own notion of where it stands.
CREATE TABLE replay (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer     text        NOT NULL,
    topic        text        NOT NULL,
    key          text,
    from_time    timestamptz NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    progress     jsonb,
    handed       bigint      NOT NULL DEFAULT 0,
    finished_at  timestamptz
);
CREATE INDEX replay_to_do ON replay (consumer, id) WHERE finished_at IS NULL;

ALTER TABLE dead_letter
    ADD discarded_at   timestamptz,
    ADD discarded_by   text,
    ADD discard_reason text,
    ADD CONSTRAINT a_dead_letter_is_discarded_for_a_reason
        CHECK ((discarded_at IS NULL) = (discard_reason IS NULL) AND (discarded_at IS NULL) = (discarded_by IS NULL));

-- Says where events are read from now on, and tells how far the relay has come. The first time that Kafka is used, the
-- relay begins behind what every consumer has read from here already.
CREATE FUNCTION read_from_kafka(is_wanted boolean) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = event_log, pg_temp AS
$$
BEGIN
    UPDATE relay
       SET is_on = is_wanted, updated_at = now(),
           position = CASE WHEN is_wanted AND relay.position = 0
                           THEN coalesce((SELECT min(consumer.position) FROM consumer), 0) ELSE relay.position END
     WHERE is_on <> is_wanted;
    RETURN (SELECT position FROM relay);
END
$$;

-- Numbers what is new, then tells how far the relay has come, where the log ends, since when the oldest batch waits, and
-- whether something that the relay set aside is to be tried again.
CREATE FUNCTION look_after_relay(
    OUT done bigint, OUT last bigint, OUT waits_since timestamptz, OUT has_retries boolean)
    LANGUAGE plpgsql SET search_path = event_log, pg_temp AS
$$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM number_batches(1000);
    SELECT position INTO done FROM relay;
    SELECT position INTO last FROM log_end;
    SELECT created_at INTO waits_since FROM batch WHERE position > done ORDER BY position LIMIT 1;
    has_retries := EXISTS (SELECT FROM dead_letter WHERE consumer = 'relay' AND replay_requested_at IS NOT NULL);
END
$$;

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
    has_replays := has_replays_for(consumer_name);
END
$$;

-- Whether a consumer is to be handed a dead letter or a part of the log again.
CREATE FUNCTION has_replays_for(consumer_name text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = event_log, pg_temp AS
$$
    SELECT EXISTS (SELECT FROM dead_letter WHERE consumer = consumer_name AND replay_requested_at IS NOT NULL)
        OR EXISTS (SELECT FROM replay WHERE consumer = consumer_name AND finished_at IS NULL)
$$;

-- Drops batches that are older than the retention and that everybody has: all consumers, or Kafka.
CREATE OR REPLACE FUNCTION drop_old_batches(older_than timestamptz) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = event_log, pg_temp AS
$$
    WITH dropped AS (
        DELETE FROM batch
         WHERE created_at < older_than
           AND position <= (SELECT CASE WHEN relay.is_on THEN relay.position
                                        ELSE (SELECT min(consumer.position) FROM consumer) END FROM relay)
        RETURNING 1
    )
    SELECT count(*) FROM dropped
$$;

-- Forgets which events were handled before an instant, at most so many at a time; returns how many.
CREATE FUNCTION forget_handled(older_than timestamptz, rows_max integer) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = event_log, pg_temp AS
$$
    WITH forgotten AS (
        DELETE FROM inbox
         WHERE ctid = ANY (ARRAY(SELECT ctid FROM inbox WHERE handled_at < older_than LIMIT rows_max))
        RETURNING 1
    )
    SELECT count(*) FROM forgotten
$$;

CREATE OR REPLACE FUNCTION count_dead_letters() RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = event_log, pg_temp AS
$$
    SELECT count(*) FROM dead_letter WHERE discarded_at IS NULL
$$;

DO $$
BEGIN
    CREATE ROLE payflow_event_relay NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
GRANT USAGE ON SCHEMA event_log TO payflow_event_relay;
GRANT SELECT ON batch, log_end, relay TO payflow_event_relay;
GRANT UPDATE (position, updated_at) ON relay TO payflow_event_relay;
GRANT SELECT, INSERT (consumer, event_id, position, source, events, cause), DELETE,
      UPDATE (cause, failed_at, replay_requested_at) ON dead_letter TO payflow_event_relay;
GRANT SELECT ON relay TO payflow_event_consumer;
GRANT SELECT, INSERT (consumer, event_id) ON inbox TO payflow_event_consumer;
GRANT SELECT, UPDATE (progress, handed, finished_at) ON replay TO payflow_event_consumer;
REVOKE EXECUTE ON FUNCTION read_from_kafka(boolean), look_after_relay(), has_replays_for(text),
       forget_handled(timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION number_batches(integer), read_from_kafka(boolean), look_after_relay() TO payflow_event_relay;
GRANT EXECUTE ON FUNCTION read_from_kafka(boolean), has_replays_for(text) TO payflow_event_consumer;

ALTER TABLE inbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY a_consumer_keeps_its_own_inbox ON inbox TO payflow_event_consumer
    USING (current_user = 'payflow_' || split_part(consumer, '.', 1))
    WITH CHECK (current_user = 'payflow_' || split_part(consumer, '.', 1));
ALTER TABLE replay ENABLE ROW LEVEL SECURITY;
CREATE POLICY a_consumer_does_its_own_replays ON replay TO payflow_event_consumer
    USING (current_user = 'payflow_' || split_part(consumer, '.', 1))
    WITH CHECK (current_user = 'payflow_' || split_part(consumer, '.', 1));
CREATE POLICY the_relay_keeps_its_own_dead_letters ON dead_letter TO payflow_event_relay
    USING (consumer = 'relay') WITH CHECK (consumer = 'relay');
