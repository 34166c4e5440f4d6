-- Credit transfers to and from other banks. Names, account numbers and references of the parties are encrypted.

CREATE TABLE instruction (
    payment_id          uuid        PRIMARY KEY,
    direction           text        NOT NULL,
    agent_bic           text        NOT NULL,
    end_to_end_id       text        NOT NULL,
    message_id          text,
    instruction_id      text,
    uetr                text,
    amount_minor        bigint      NOT NULL,
    currency            text        NOT NULL,
    parties_encrypted   bytea       NOT NULL,
    fencing_token       bigint      NOT NULL,
    status              text        NOT NULL,
    reason_code         text,
    is_suspicious       boolean,
    attempts            integer     NOT NULL DEFAULT 0,
    next_attempt_at     timestamptz,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    answered_at         timestamptz,
    is_answer_delivered boolean     NOT NULL DEFAULT false,
    CONSTRAINT one_payment_per_bank_and_end_to_end_id UNIQUE (direction, agent_bic, end_to_end_id),
    CONSTRAINT a_direction_is_known CHECK (direction IN ('OUTGOING', 'INCOMING')),
    CONSTRAINT an_outgoing_status_is_known CHECK (direction <> 'OUTGOING' OR status IN ('UNKNOWN', 'ACCEPTED', 'REJECTED')),
    CONSTRAINT an_incoming_status_is_known CHECK (
        direction <> 'INCOMING' OR status IN ('PENDING', 'CREDITED', 'HELD_IN_SUSPENSE', 'REJECTED')
    ),
    CONSTRAINT an_amount_is_positive CHECK (amount_minor > 0),
    CONSTRAINT what_is_open_is_tried_again CHECK (status NOT IN ('UNKNOWN', 'PENDING') OR next_attempt_at IS NOT NULL),
    CONSTRAINT what_is_delivered_is_not_tried_again CHECK (NOT is_answer_delivered OR next_attempt_at IS NULL)
) WITH (fillfactor = 80);
CREATE INDEX instructions_to_try_again ON instruction (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX instructions_by_age ON instruction (created_at DESC, payment_id DESC);

GRANT SELECT, INSERT, UPDATE ON instruction TO payflow_partner_bank;
