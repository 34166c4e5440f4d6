-- Users, their sessions, and what was revoked. Passwords are argon2id hashes, refresh tokens are kept as SHA-256 only:
-- whoever reads these tables can sign in as nobody.

CREATE TABLE users (
    user_id       uuid        PRIMARY KEY,
    username      text        NOT NULL,
    role          text        NOT NULL,
    customer_id   text,
    password_hash text        NOT NULL,
    is_enabled    boolean     NOT NULL DEFAULT true,
    version       integer     NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL,
    CONSTRAINT a_role_is_known CHECK (role IN ('customer', 'operator', 'compliance', 'auditor', 'admin')),
    CONSTRAINT a_customer_has_a_customer_id CHECK (role <> 'customer' OR customer_id IS NOT NULL),
    CONSTRAINT a_customer_id_is_not_empty CHECK (customer_id <> ''),
    CONSTRAINT passwords_are_argon2id CHECK (password_hash LIKE '$argon2id$%')
);
-- "Demo" and "demo" are one person.
CREATE UNIQUE INDEX one_user_per_name ON users (lower(username));
CREATE INDEX users_of_a_customer ON users (customer_id) WHERE customer_id IS NOT NULL;

-- A session is a family of refresh tokens: one sign-in, renewed by rotation until it ends.
CREATE TABLE session (
    session_id uuid        PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES users,
    opened_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz,
    end_reason text,
    CONSTRAINT an_ended_session_has_its_reason CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
CREATE INDEX sessions_of_a_user ON session (user_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_by_expiry ON session (expires_at);

CREATE TABLE refresh_token (
    token_sha256 bytea       PRIMARY KEY,
    session_id   uuid        NOT NULL REFERENCES session ON DELETE CASCADE,
    issued_at    timestamptz NOT NULL,
    used_at      timestamptz,
    CONSTRAINT a_digest_is_sha256 CHECK (octet_length(token_sha256) = 32)
);
CREATE INDEX refresh_tokens_of_a_session ON refresh_token (session_id);

-- The truth about revoked access tokens: `id` is a token's jti or a session's id, `ends_at` when its last access token
-- has ended anyway. `number` counts without gaps, so that a cache can tell what it has not heard of.
CREATE TABLE revoked (
    id         text        PRIMARY KEY,
    number     bigint      NOT NULL,
    ends_at    timestamptz NOT NULL,
    revoked_at timestamptz NOT NULL,
    reason     text        NOT NULL
);
CREATE INDEX revoked_by_end ON revoked (ends_at);

-- How many revocations there have been, and a name for this database's life: gateways of another database that share
-- a cache with these must not believe its marks. The name is given at the first start, never by a copied template.
CREATE TABLE revocation_count (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    generation uuid,
    number     bigint  NOT NULL DEFAULT 0
);
INSERT INTO revocation_count DEFAULT VALUES;

GRANT SELECT, INSERT, UPDATE ON users TO payflow_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON session, refresh_token, revoked TO payflow_gateway;
GRANT SELECT, UPDATE ON revocation_count TO payflow_gateway;
