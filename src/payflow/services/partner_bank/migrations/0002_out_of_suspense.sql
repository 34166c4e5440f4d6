-- Money in suspense goes on: to its creditor once its review is cleared, or back to the bank that sent it.

-- Each offer of a payment's money back to its bank (pacs.004), under ids of its own; a refused one stays, as refused.
-- A table of its own: the release before this one knows of no returns, and to it such money is held as before.
CREATE TABLE incoming_return (
    return_id       uuid        PRIMARY KEY,
    payment_id      uuid        NOT NULL,
    number          integer     NOT NULL,
    message_id      text        NOT NULL,
    agent_bic       text        NOT NULL,
    end_to_end_id   text        NOT NULL,
    uetr            text,
    amount_minor    bigint      NOT NULL,
    currency        text        NOT NULL,
    return_reason   text        NOT NULL,
    status          text        NOT NULL,
    reason_code     text,
    attempts        integer     NOT NULL,
    next_attempt_at timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    sent_at         timestamptz,
    answered_at     timestamptz,
    booked_at       timestamptz,
    proof           text,
    ended_by        text,
    CONSTRAINT one_return_of_each_number UNIQUE (payment_id, number),
    CONSTRAINT a_status_of_a_return_is_known CHECK (status IN ('UNKNOWN', 'ACCEPTED', 'REJECTED')),
    CONSTRAINT only_what_was_sent_has_a_word CHECK (status = 'UNKNOWN' OR sent_at IS NOT NULL OR proof IS NOT NULL),
    CONSTRAINT a_proof_is_somebodys CHECK ((proof IS NULL) = (ended_by IS NULL)),
    CONSTRAINT only_what_was_taken_back_is_booked CHECK (status = 'ACCEPTED' OR booked_at IS NULL),
    CONSTRAINT a_returned_amount_is_positive CHECK (amount_minor > 0),
    CONSTRAINT what_is_open_is_tried_again CHECK (
        (next_attempt_at IS NULL) = (status = 'REJECTED' OR booked_at IS NOT NULL)
    )
) WITH (fillfactor = 80);
-- The money is offered again only after a refusal: no two offers of it can both be taken.
CREATE UNIQUE INDEX one_return_that_is_not_refused ON incoming_return (payment_id) WHERE status <> 'REJECTED';
CREATE INDEX returns_to_try_again ON incoming_return (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX returns_by_age ON incoming_return (created_at DESC, return_id DESC);

GRANT SELECT, INSERT, UPDATE ON incoming_return TO payflow_partner_bank;

-- That held money goes back, or went, and why. The status stays HELD_IN_SUSPENSE: a process of the release before reads it.
-- Whoever pays waits behind the lock that this waits for: rather another time. Neither part reads the table's rows.
SET LOCAL lock_timeout = '5s';
ALTER TABLE instruction
    ADD COLUMN suspense_exit text,
    ADD COLUMN exit_reason text,
    ADD CONSTRAINT only_held_money_goes_back CHECK (
        suspense_exit IS NULL OR (status = 'HELD_IN_SUSPENSE' AND suspense_exit IN ('RETURNING', 'RETURNED'))
    ) NOT VALID;
