-- Messages to customers and their deliveries. `message` never holds a one-time code: a message with a code has no body.
-- The hot tables carry no foreign key: a message and its deliveries are written, and deleted, by one statement.

CREATE TABLE message (
    message_id  uuid        PRIMARY KEY,
    customer_id text        NOT NULL,
    kind        text        NOT NULL,
    about       text        NOT NULL,
    language    text        NOT NULL,
    subject     text        NOT NULL,
    body        text,
    created_at  timestamptz NOT NULL,
    CONSTRAINT one_message_of_a_kind_about_one_thing UNIQUE (about, kind),
    CONSTRAINT only_a_message_with_a_code_has_no_body CHECK ((kind = 'otp_code') = (body IS NULL))
);
CREATE INDEX messages_of_a_customer ON message (customer_id, message_id DESC);
CREATE INDEX message_age ON message USING brin (created_at);

CREATE TABLE delivery (
    message_id  uuid        NOT NULL,
    channel     text        NOT NULL,
    state       text        NOT NULL DEFAULT 'PENDING',
    has_code    boolean     NOT NULL,
    tries       smallint    NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL,
    ended_at    timestamptz,
    reason      text,
    PRIMARY KEY (message_id, channel),
    CONSTRAINT a_delivery_state_is_known CHECK (state IN ('PENDING', 'DELIVERED', 'FAILED')),
    CONSTRAINT an_ended_delivery_has_its_instant CHECK ((state = 'PENDING') = (ended_at IS NULL))
) WITH (fillfactor = 80);
-- Codes are left out: they are sent by the call that brings them.
CREATE INDEX deliveries_due ON delivery (next_try_at) WHERE state = 'PENDING' AND NOT has_code;

CREATE TABLE preference (
    customer_id text        PRIMARY KEY,
    language    text        NOT NULL,
    channels    text[]      NOT NULL,
    changed_at  timestamptz NOT NULL
);

-- The codes that the demo channel sent, encrypted (subject, body and code); empty wherever the demo channel is off.
CREATE TABLE demo_outbox (
    message_id        uuid        PRIMARY KEY,
    customer_id       text        NOT NULL,
    kind              text        NOT NULL,
    transaction_id    text,
    content_encrypted bytea       NOT NULL,
    sent_at           timestamptz NOT NULL,
    expires_at        timestamptz
);
CREATE INDEX codes_of_a_transaction ON demo_outbox (transaction_id, sent_at DESC) WHERE kind = 'otp_code';
CREATE INDEX demo_outbox_age ON demo_outbox USING brin (sent_at);

GRANT SELECT, INSERT, DELETE ON message, demo_outbox TO payflow_notification;
GRANT SELECT, INSERT, UPDATE, DELETE ON delivery TO payflow_notification;
GRANT SELECT, INSERT, UPDATE ON preference TO payflow_notification;
GRANT payflow_event_consumer TO payflow_notification;
