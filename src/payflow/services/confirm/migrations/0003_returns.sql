-- Returns: payments that give a completed payment's money back, each with a payment id of its own (return_id).

-- What all returns of a payment come to, in a row of its own, so that returns at the same moment wait for each other here
-- and not on the payment: taken by all that are not refused, returned by those that are completed.
CREATE TABLE return_total (
    payment_id     uuid   PRIMARY KEY,
    amount_minor   bigint NOT NULL,
    taken_minor    bigint NOT NULL DEFAULT 0,
    returned_minor bigint NOT NULL DEFAULT 0,
    CONSTRAINT never_more_than_the_payment CHECK (taken_minor BETWEEN 0 AND amount_minor),
    CONSTRAINT what_is_returned_was_taken CHECK (returned_minor BETWEEN 0 AND taken_minor)
);

CREATE TABLE payment_return (
    return_id           uuid        PRIMARY KEY,
    payment_id          uuid        NOT NULL REFERENCES return_total,
    transaction_id      text        NOT NULL,
    idempotency_key     text        NOT NULL,
    fingerprint         bytea       NOT NULL,
    amount_minor        bigint      NOT NULL,
    currency            text        NOT NULL,
    debtor_customer_id  text        NOT NULL,
    debtor_account      text        NOT NULL,
    debtor_account_id   uuid        NOT NULL,
    creditor_customer_id text       NOT NULL,
    creditor_account    text        NOT NULL,
    creditor_account_id uuid        NOT NULL,
    reason_code         text        NOT NULL,
    note_encrypted      bytea,
    needs_approval      boolean     NOT NULL,
    requested_by        text        NOT NULL,
    decided_by          text,
    review_id           uuid,
    state               text        NOT NULL,
    version             integer     NOT NULL,
    fencing_token       bigint      NOT NULL,
    leased_until        timestamptz,
    due_at              timestamptz,
    error_code          text,
    error_detail        text,
    traceparent         text        NOT NULL,
    requested_at        timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    completed_at        timestamptz,
    expires_at          timestamptz,
    CONSTRAINT one_return_per_key UNIQUE (requested_by, idempotency_key),
    CONSTRAINT a_return_moves_something CHECK (amount_minor > 0),
    CONSTRAINT a_return_state_is_known CHECK (state IN ('AWAITING_APPROVAL', 'APPROVED', 'UNDER_REVIEW', 'COMPLETED',
        'REJECTED', 'DECLINED', 'EXPIRED')),
    CONSTRAINT an_unfinished_return_has_a_next_step CHECK (
        (state IN ('COMPLETED', 'REJECTED', 'DECLINED', 'EXPIRED')) = (due_at IS NULL)),
    CONSTRAINT a_refused_return_has_its_reason CHECK (
        (state IN ('REJECTED', 'DECLINED', 'EXPIRED')) = (error_code IS NOT NULL)),
    CONSTRAINT a_completed_return_has_its_instant CHECK ((state = 'COMPLETED') = (completed_at IS NOT NULL)),
    CONSTRAINT four_eyes_are_two_people CHECK (decided_by <> requested_by),
    CONSTRAINT a_return_above_the_limit_goes_on_by_a_second_person CHECK (
        NOT needs_approval OR decided_by IS NOT NULL OR state IN ('AWAITING_APPROVAL', 'EXPIRED'))
);
CREATE INDEX returns_of_a_payment ON payment_return (payment_id, return_id);
CREATE INDEX returns_that_are_due ON payment_return (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE return_step (
    return_id uuid        NOT NULL,
    version   integer     NOT NULL,
    source    text,
    target    text        NOT NULL,
    at        timestamptz NOT NULL,
    reason    text,
    taken_by  text,
    PRIMARY KEY (return_id, version)
);

GRANT SELECT, INSERT, UPDATE ON return_total, payment_return TO payflow_confirm;
GRANT SELECT, INSERT ON return_step TO payflow_confirm;
