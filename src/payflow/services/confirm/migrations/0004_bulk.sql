-- Bulk orders: a file's lines are stored before anything is done about them, hundreds to a row: a row for each line
-- would cost as much as the payment itself. What became of a line is told by the payment that it has become.

CREATE TABLE bulk_order (
    bulk_id         uuid        PRIMARY KEY,
    customer_id     text        NOT NULL,
    idempotency_key text,
    state           text        NOT NULL,
    version         integer     NOT NULL,
    fencing_token   bigint      NOT NULL,
    leased_until    timestamptz,
    due_at          timestamptz,
    columns         text[],
    items           integer     NOT NULL,
    stored_to       integer     NOT NULL,
    started_to      integer     NOT NULL,
    ran_to          integer     NOT NULL,
    traceparent     text        NOT NULL,
    received_at     timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    counted_at      timestamptz NOT NULL,
    accepted_at     timestamptz,
    ended_at        timestamptz,
    expires_at      timestamptz,
    CONSTRAINT one_bulk_order_per_idempotency_key UNIQUE (customer_id, idempotency_key),
    CONSTRAINT a_bulk_state_is_known CHECK (state IN ('RECEIVING', 'PROCESSING', 'CANCELLING', 'COMPLETED',
        'CANCELLED', 'EXPIRED')),
    CONSTRAINT an_unfinished_bulk_order_has_a_next_step CHECK (
        (state IN ('COMPLETED', 'CANCELLED', 'EXPIRED')) = (due_at IS NULL)),
    CONSTRAINT lines_are_stored_then_begun_then_ended CHECK (ran_to <= started_to AND started_to <= stored_to)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

CREATE INDEX bulk_orders_that_are_due ON bulk_order (due_at) WHERE due_at IS NOT NULL;

-- One entry in each list per line. payments_encrypted is there until the lines have their results, payment_ids from
-- then on; a line that is no payment has its error_code instead.
CREATE TABLE bulk_chunk (
    bulk_id            uuid      NOT NULL REFERENCES bulk_order,
    first_line         integer   NOT NULL,
    last_line          integer   NOT NULL,
    lines              integer[] NOT NULL,
    transaction_ids    text[]    NOT NULL,
    fingerprints       bytea[]   NOT NULL,
    payments_encrypted bytea,
    payment_ids        uuid[],
    error_codes        text[]    NOT NULL,
    error_details      text[]    NOT NULL,
    counts             jsonb     NOT NULL,
    open_ids           uuid[]    NOT NULL DEFAULT '{}',
    PRIMARY KEY (bulk_id, first_line),
    CONSTRAINT lines_end_with_the_last CHECK (lines[cardinality(lines)] = last_line AND first_line <= last_line),
    CONSTRAINT a_chunk_has_contents_or_results CHECK ((payments_encrypted IS NULL) = (payment_ids IS NOT NULL)),
    CONSTRAINT lists_have_one_entry_per_line CHECK (
        cardinality(lines) = cardinality(transaction_ids) AND cardinality(lines) = cardinality(fingerprints)
        AND cardinality(lines) = cardinality(error_codes) AND cardinality(lines) = cardinality(error_details)
        AND (payment_ids IS NULL OR cardinality(lines) = cardinality(payment_ids)))
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

GRANT SELECT, INSERT, UPDATE ON bulk_order TO payflow_confirm;
GRANT SELECT, INSERT, UPDATE ON bulk_chunk TO payflow_confirm;
