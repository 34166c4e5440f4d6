-- Challenges: one row for each one-time password that was issued. The code itself is never here: it follows from a
-- secret key, the nonce, and the payment.

CREATE TABLE challenge (
    challenge_id uuid        PRIMARY KEY,
    payment_id   uuid        NOT NULL,
    customer_id  text        NOT NULL,
    key_id       text        NOT NULL,
    nonce        bytea       NOT NULL,
    binding      bytea       NOT NULL,
    state        text        NOT NULL DEFAULT 'OPEN',
    tries        smallint    NOT NULL DEFAULT 0,
    tries_max    smallint    NOT NULL,
    issued_at    timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    sent_at      timestamptz,
    ended_at     timestamptz,
    end_reason   text,
    attempt_id   uuid,
    CONSTRAINT a_challenge_state_is_known CHECK (state IN ('OPEN', 'USED', 'VOID', 'EXPIRED')),
    CONSTRAINT an_ended_challenge_has_its_instant CHECK ((state = 'OPEN') = (ended_at IS NULL)),
    CONSTRAINT a_used_challenge_names_its_attempt CHECK ((state = 'USED') = (attempt_id IS NOT NULL)),
    CONSTRAINT tries_stay_within_their_number CHECK (tries BETWEEN 0 AND tries_max),
    CONSTRAINT an_open_challenge_has_tries_left CHECK (state <> 'OPEN' OR tries < tries_max)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX one_open_challenge_per_payment ON challenge (payment_id) WHERE state = 'OPEN';
CREATE INDEX challenges_of_a_payment ON challenge (payment_id);
CREATE INDEX challenges_of_a_customer ON challenge (customer_id, issued_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON challenge TO payflow_otp;
