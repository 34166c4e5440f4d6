-- Payments: the request, its idempotency key and the saga's state in one row, so that accepting a payment is one
-- insert and every later step one update. Each state that a payment takes is a row of payment_transition.

CREATE TABLE transactions (
    payment_id              uuid        PRIMARY KEY,
    customer_id             text        NOT NULL,
    idempotency_key         text,
    fingerprint             bytea       NOT NULL,
    transaction_id          text        NOT NULL,
    amount                  text        NOT NULL,
    amount_minor            bigint,
    currency                text,
    debtor_account          text        NOT NULL,
    creditor_account        text        NOT NULL,
    creditor_name_encrypted bytea,
    creditor_country        text,
    creditor_agent          text,
    remittance_encrypted    bytea,
    debtor_account_id       uuid,
    creditor_account_id     uuid,
    agent_bic               text,
    state                   text        NOT NULL,
    version                 integer     NOT NULL,
    fencing_token           bigint      NOT NULL,
    leased_until            timestamptz,
    due_at                  timestamptz,
    risk_level              text,
    needs_otp               boolean     NOT NULL DEFAULT false,
    has_hold                boolean     NOT NULL DEFAULT false,
    review_id               uuid,
    reason                  text,
    error_code              text,
    error_detail            text,
    traceparent             text        NOT NULL,
    received_at             timestamptz NOT NULL,
    updated_at              timestamptz NOT NULL,
    completed_at            timestamptz,
    expires_at              timestamptz,
    execute_at              timestamptz,
    CONSTRAINT one_payment_per_idempotency_key UNIQUE (customer_id, idempotency_key),
    CONSTRAINT one_payment_per_transaction_id UNIQUE (customer_id, transaction_id),
    CONSTRAINT a_payment_state_is_known CHECK (state IN ('RECEIVED', 'UNDER_REVIEW', 'AWAITING_OTP', 'APPROVED',
        'SCHEDULED', 'HELD', 'SUBMITTED', 'COMPLETED', 'REJECTED', 'CANCELLED', 'EXPIRED')),
    CONSTRAINT an_unfinished_payment_has_a_next_step CHECK (
        (state IN ('COMPLETED', 'REJECTED', 'CANCELLED', 'EXPIRED')) = (due_at IS NULL)),
    CONSTRAINT a_refused_payment_has_its_reason CHECK (
        state NOT IN ('REJECTED', 'CANCELLED', 'EXPIRED') OR error_code IS NOT NULL),
    CONSTRAINT a_completed_payment_has_its_instant CHECK ((state = 'COMPLETED') = (completed_at IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

CREATE INDEX payments_of_a_customer ON transactions (customer_id, payment_id);
CREATE INDEX payments_that_are_due ON transactions (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE payment_transition (
    payment_id uuid        NOT NULL,
    version    integer     NOT NULL,
    source     text,
    target     text        NOT NULL,
    at         timestamptz NOT NULL,
    reason     text,
    PRIMARY KEY (payment_id, version)
);

-- Undoes claims of payments that nothing was done for, so that their keys are free again: the only way in which the
-- service can remove a payment, and it reaches none that took a step or was taken over.
CREATE FUNCTION withdraw(payment_ids uuid[]) RETURNS SETOF uuid
    LANGUAGE sql SECURITY DEFINER SET search_path = confirm, pg_temp AS
$$
    WITH gone AS (
        DELETE FROM transactions
         WHERE payment_id = ANY(payment_ids) AND state = 'RECEIVED' AND version = 1 AND fencing_token = 1
        RETURNING payment_id
    ), steps AS (
        DELETE FROM payment_transition USING gone WHERE payment_transition.payment_id = gone.payment_id
    )
    SELECT payment_id FROM gone
$$;
REVOKE EXECUTE ON FUNCTION withdraw(uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION withdraw(uuid[]) TO payflow_confirm;

GRANT SELECT, INSERT, UPDATE ON transactions TO payflow_confirm;
GRANT SELECT, INSERT ON payment_transition TO payflow_confirm;
