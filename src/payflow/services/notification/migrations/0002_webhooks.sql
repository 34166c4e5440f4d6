-- Webhooks: where events are sent to, and one delivery for each webhook and event. A delivery carries what is sent (no
-- name and no full account number is in it), so that an attempt reads one row.

CREATE TABLE webhook (
    webhook_id        uuid        PRIMARY KEY,
    url               text        NOT NULL,
    event_types       text[]      NOT NULL,
    description       text        NOT NULL,
    customer_id       text,
    state             text        NOT NULL DEFAULT 'ENABLED',
    disabled_reason   text,
    -- The secret that signs, newest first, and those before it with the end of their time; a list as JSON.
    secrets_encrypted bytea       NOT NULL,
    failing_since     timestamptz,
    version           integer     NOT NULL,
    created_by        text        NOT NULL,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    CONSTRAINT a_webhook_state_is_known CHECK (state IN ('ENABLED', 'DISABLED')),
    CONSTRAINT a_disabled_webhook_has_a_reason CHECK ((state = 'DISABLED') = (disabled_reason IS NOT NULL)),
    CONSTRAINT a_webhook_hears_something CHECK (cardinality(event_types) > 0)
);

CREATE TABLE webhook_delivery (
    delivery_id     uuid        PRIMARY KEY,
    webhook_id      uuid        NOT NULL REFERENCES webhook ON DELETE CASCADE,
    event_id        uuid        NOT NULL,
    event_type      text        NOT NULL,
    subject         text        NOT NULL,
    body            bytea       NOT NULL,
    state           text        NOT NULL DEFAULT 'PENDING',
    -- All attempts, and how many of them were made before somebody asked for a redelivery.
    attempts        integer     NOT NULL DEFAULT 0,
    attempts_before integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    -- Whoever has claimed it has it for itself until then.
    leased_until    timestamptz,
    status_code     smallint,
    error           text,
    last_attempt_at timestamptz,
    delivered_at    timestamptz,
    created_at      timestamptz NOT NULL,
    CONSTRAINT one_delivery_of_an_event_to_a_webhook UNIQUE (webhook_id, event_id),
    CONSTRAINT a_webhook_delivery_state_is_known CHECK (state IN ('PENDING', 'DELIVERED', 'FAILED')),
    CONSTRAINT only_a_delivered_one_has_the_instant CHECK ((state = 'DELIVERED') = (delivered_at IS NOT NULL)),
    CONSTRAINT only_a_pending_one_is_leased CHECK (state = 'PENDING' OR leased_until IS NULL)
) WITH (fillfactor = 80);
CREATE INDEX webhook_deliveries_due ON webhook_delivery (webhook_id, next_attempt_at) WHERE state = 'PENDING';
CREATE INDEX webhook_deliveries_listed ON webhook_delivery (webhook_id, delivery_id DESC);
CREATE INDEX webhook_delivery_age ON webhook_delivery USING brin (created_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON webhook, webhook_delivery TO payflow_notification;
