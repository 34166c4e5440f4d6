-- The audit chain. The service may insert and read rows, never change or delete one; whoever can, as the database's
-- owner can, is found out by the hashes and by the signed heads outside the database.

CREATE TABLE audit_logs (
    sequence      bigint      PRIMARY KEY,
    event_id      uuid        NOT NULL,
    type          text        NOT NULL,
    source        text        NOT NULL,
    subject       text        NOT NULL,
    version       bigint      NOT NULL,
    occurred_at   timestamptz NOT NULL,
    recorded_at   timestamptz NOT NULL,
    -- json, not jsonb: it keeps the text exactly as it was hashed.
    data          json        NOT NULL,
    traceparent   text        NOT NULL,
    previous_hash bytea       NOT NULL,
    hash          bytea       NOT NULL,
    CONSTRAINT one_row_per_event UNIQUE (event_id),
    CONSTRAINT a_sequence_counts_from_one CHECK (sequence > 0),
    CONSTRAINT hashes_are_sha_256 CHECK (octet_length(previous_hash) = 32 AND octet_length(hash) = 32)
);
CREATE INDEX audit_logs_of_a_subject ON audit_logs (subject, sequence);
CREATE INDEX audit_logs_of_a_type ON audit_logs (type, sequence);
-- Rows about something else that name a payment or a customer: a review of a payment, a customer's payments.
CREATE INDEX audit_logs_that_name_a_payment ON audit_logs ((data ->> 'payment_id'), sequence)
 WHERE data ->> 'payment_id' <> subject;
CREATE INDEX audit_logs_that_name_a_customer ON audit_logs ((data ->> 'customer_id'), sequence)
 WHERE data ->> 'customer_id' <> subject;

CREATE TABLE chain_end (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    sequence bigint  NOT NULL,
    hash     bytea   NOT NULL
) WITH (fillfactor = 10);
INSERT INTO chain_end (sequence, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

CREATE TABLE head_receipt (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    number   bigint  NOT NULL,
    digest   text    NOT NULL
);
INSERT INTO head_receipt (number, digest) VALUES (0, repeat('0', 64));

GRANT SELECT, INSERT ON audit_logs TO payflow_audit;
GRANT SELECT, UPDATE ON chain_end, head_receipt TO payflow_audit;
GRANT payflow_event_consumer TO payflow_audit;
GRANT EXECUTE ON FUNCTION event_log.drop_old_batches(timestamptz), event_log.count_dead_letters() TO payflow_audit;
