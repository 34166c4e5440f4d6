-- Customers, accounts and the ledger. The hot tables (account_balance, journal_entry, posting, fund_reservations)
-- carry no foreign keys: each check would lock and read a row per posting, and `payflow ledger verify` proves the
-- same from the postings. Everything that one statement can check is a constraint.

CREATE TABLE customers (
    customer_id     text        PRIMARY KEY,
    name_encrypted  bytea       NOT NULL,
    email_encrypted bytea,
    phone_encrypted bytea,
    country         text,
    state           text        NOT NULL DEFAULT 'ACTIVE',
    version         integer     NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL,
    CONSTRAINT a_customer_state_is_known CHECK (state IN ('ACTIVE', 'BLOCKED'))
);

CREATE TABLE accounts (
    account_id  uuid        PRIMARY KEY,
    number      text        NOT NULL,
    customer_id text        REFERENCES customers,
    kind        text        NOT NULL,
    currency    text        NOT NULL,
    state       text        NOT NULL DEFAULT 'OPEN',
    version     integer     NOT NULL DEFAULT 1,
    opened_at   timestamptz NOT NULL,
    CONSTRAINT one_account_per_number UNIQUE (number),
    CONSTRAINT an_account_state_is_known CHECK (state IN ('OPEN', 'BLOCKED_DEBIT', 'BLOCKED_CREDIT', 'BLOCKED', 'CLOSED')),
    CONSTRAINT an_account_kind_is_known CHECK (kind IN ('customer', 'nostro', 'opening', 'suspense', 'fees')),
    CONSTRAINT only_internal_accounts_have_no_customer CHECK ((kind = 'customer') = (customer_id IS NOT NULL))
);
CREATE INDEX accounts_of_a_customer ON accounts (customer_id);

-- Apart from `accounts`, so that a payment updates a narrow row in place (HOT) and no index. The states stand here too:
-- who waits for a balance's lock reads them as they are when the lock is granted.
CREATE TABLE account_balance (
    account_id   uuid    PRIMARY KEY,
    currency     text    NOT NULL,
    state        text    NOT NULL DEFAULT 'OPEN',
    is_owner_blocked boolean NOT NULL DEFAULT false,
    is_internal  boolean NOT NULL,
    posted_minor bigint  NOT NULL DEFAULT 0,
    held_minor   bigint  NOT NULL DEFAULT 0,
    sequence     bigint  NOT NULL DEFAULT 0,
    -- Rises with whatever is written about the account or about a payment from it: who knows a balance by its version
    -- knows that nothing has happened since.
    version      bigint  NOT NULL DEFAULT 0,
    CONSTRAINT held_is_not_negative CHECK (held_minor >= 0),
    CONSTRAINT customers_do_not_overdraw CHECK (is_internal OR posted_minor - held_minor >= 0)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

CREATE TABLE journal_entry (
    entry_id      uuid        PRIMARY KEY,
    payment_id    uuid,
    kind          text        NOT NULL,
    fencing_token bigint      NOT NULL,
    booked_at     timestamptz NOT NULL,
    CONSTRAINT one_booking_per_payment UNIQUE (payment_id)
);

CREATE TABLE posting (
    account_id    uuid        NOT NULL,
    sequence      bigint      NOT NULL,
    entry_id      uuid        NOT NULL,
    amount_minor  bigint      NOT NULL,
    balance_minor bigint      NOT NULL,
    booked_at     timestamptz NOT NULL,
    PRIMARY KEY (account_id, sequence),
    CONSTRAINT a_posting_moves_something CHECK (amount_minor <> 0)
);

CREATE TABLE fund_reservations (
    payment_id    uuid        PRIMARY KEY,
    hold_id       uuid        NOT NULL,
    account_id    uuid        NOT NULL,
    amount_minor  bigint      NOT NULL,
    currency      text        NOT NULL,
    state         text        NOT NULL,
    fencing_token bigint      NOT NULL,
    placed_at     timestamptz NOT NULL,
    expires_at    timestamptz,
    ended_at      timestamptz,
    end_reason    text,
    CONSTRAINT a_hold_is_positive CHECK (amount_minor > 0),
    CONSTRAINT a_hold_state_is_known CHECK (state IN ('HELD', 'CAPTURED', 'RELEASED')),
    CONSTRAINT an_ended_hold_has_its_instant CHECK ((state = 'HELD') = (ended_at IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX open_holds ON fund_reservations (account_id) WHERE state = 'HELD';
CREATE INDEX holds_that_expire ON fund_reservations (expires_at) WHERE state = 'HELD' AND expires_at IS NOT NULL;

-- A refusal is remembered, so that a late repeat of the command cannot succeed after the payment was told "no".
CREATE TABLE refused_command (
    payment_id    uuid        NOT NULL,
    step          text        NOT NULL,
    code          text        NOT NULL,
    detail        text        NOT NULL,
    fencing_token bigint      NOT NULL,
    refused_at    timestamptz NOT NULL,
    PRIMARY KEY (payment_id, step)
);

GRANT SELECT, INSERT, UPDATE ON customers, accounts, account_balance, fund_reservations TO payflow_account;
GRANT SELECT, INSERT ON journal_entry, posting, refused_command TO payflow_account;
