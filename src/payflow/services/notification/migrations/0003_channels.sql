-- Channels with vendors behind them: a message may go several ways, one after the other; a vendor takes it under an id of
-- its own and tells later what became of it; push messages go to devices.

ALTER TABLE message
    -- The text for what shows little; none where there is a code, and of messages from before this column.
    ADD COLUMN short text,
    ADD CONSTRAINT a_message_with_a_code_has_no_short_text CHECK (kind <> 'otp_code' OR short IS NULL);

ALTER TABLE delivery
    -- Its place among the ways of its message: 0 is tried first.
    ADD COLUMN place smallint NOT NULL DEFAULT 0,
    ADD COLUMN sent_at timestamptz,
    ADD COLUMN vendor_id text,
    -- A try may have reached the vendor although nobody knows: it was not answered, or its process died.
    ADD COLUMN is_doubtful boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT a_delivery_state_is_known,
    DROP CONSTRAINT an_ended_delivery_has_its_instant,
    ADD CONSTRAINT a_delivery_state_is_known CHECK (state IN ('WAITING', 'PENDING', 'SENT', 'DELIVERED', 'FAILED')),
    ADD CONSTRAINT a_delivery_that_is_not_tried_any_more_has_its_instant
        CHECK ((state IN ('WAITING', 'PENDING')) = (ended_at IS NULL)),
    ADD CONSTRAINT a_sent_delivery_has_its_instant CHECK (state <> 'SENT' OR sent_at IS NOT NULL);

-- Each channel's own duty looks for what is due.
CREATE INDEX deliveries_due_by_channel ON delivery (channel, next_try_at) WHERE state = 'PENDING' AND NOT has_code;
DROP INDEX deliveries_due;

-- What vendors told, each word once.
CREATE TABLE receipt (
    vendor      text        NOT NULL,
    event_id    text        NOT NULL,
    message_id  uuid        NOT NULL,
    channel     text        NOT NULL,
    vendor_id   text        NOT NULL,
    status      text        NOT NULL,
    reason      text,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    CONSTRAINT a_word_of_a_vendor_counts_once PRIMARY KEY (vendor, event_id)
);
CREATE INDEX receipts_of_a_message ON receipt (message_id);

-- Customers' devices. A token is found by its digest and stored encrypted.
CREATE TABLE device (
    device_id       uuid        PRIMARY KEY,
    customer_id     text        NOT NULL,
    platform        text        NOT NULL,
    token_digest    bytea       NOT NULL,
    token_encrypted bytea       NOT NULL,
    registered_at   timestamptz NOT NULL,
    seen_at         timestamptz NOT NULL,
    CONSTRAINT a_token_belongs_to_one_device UNIQUE (token_digest)
);
CREATE INDEX devices_of_a_customer ON device (customer_id, seen_at DESC);

GRANT SELECT, INSERT, DELETE ON receipt TO payflow_notification;
GRANT SELECT, INSERT, UPDATE, DELETE ON device TO payflow_notification;
