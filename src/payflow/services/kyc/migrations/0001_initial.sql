-- Where each customer stands, and every record that led there. The first table is what the newest row of the second
-- says, kept apart so that a payment reads one narrow row.

CREATE TABLE verification (
    customer_id text        PRIMARY KEY,
    version     integer     NOT NULL,
    state       text        NOT NULL,
    level       text        NOT NULL,
    verified_at timestamptz,
    expires_at  timestamptz,
    CONSTRAINT a_verification_state_is_known
        CHECK (state IN ('UNVERIFIED', 'PENDING', 'VERIFIED', 'REJECTED', 'EXPIRED')),
    CONSTRAINT a_verification_level_is_known CHECK (level IN ('NONE', 'BASIC', 'FULL')),
    CONSTRAINT a_verified_customer_has_level_and_instant
        CHECK (state <> 'VERIFIED' OR (level <> 'NONE' AND verified_at IS NOT NULL))
);

CREATE TABLE verification_change (
    customer_id text        NOT NULL,
    version     integer     NOT NULL,
    command_id  uuid        NOT NULL,
    state       text        NOT NULL,
    level       text        NOT NULL,
    verified_at timestamptz,
    expires_at  timestamptz,
    reason      text        NOT NULL,
    recorded_by text        NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, version),
    CONSTRAINT one_change_per_command UNIQUE (command_id),
    CONSTRAINT versions_begin_at_one CHECK (version > 0)
);

-- The history is written and read, never changed.
GRANT SELECT, INSERT, UPDATE ON verification TO payflow_kyc;
GRANT SELECT, INSERT ON verification_change TO payflow_kyc;
