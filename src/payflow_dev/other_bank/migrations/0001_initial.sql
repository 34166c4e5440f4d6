-- The books of the fictional banks: accounts in several currencies, what they received, what they paid, and how they
-- are told to behave.

CREATE TABLE account (
    number    text PRIMARY KEY,
    agent_bic text NOT NULL,
    holder    text NOT NULL
);

CREATE TABLE balance (
    number       text   NOT NULL REFERENCES account,
    currency     text   NOT NULL,
    amount_minor bigint NOT NULL,
    PRIMARY KEY (number, currency)
) WITH (fillfactor = 50);

CREATE TABLE received (
    sequence       bigint GENERATED ALWAYS AS IDENTITY,
    agent_bic      text        NOT NULL,
    sender_bic     text        NOT NULL,
    end_to_end_id  text        NOT NULL,
    message_id     text        NOT NULL,
    instruction_id text,
    uetr           text,
    account        text        NOT NULL,
    amount_minor   bigint      NOT NULL,
    currency       text        NOT NULL,
    debtor_name    text,
    status         text        NOT NULL DEFAULT 'PENDING',
    reason_code    text,
    times_received integer     NOT NULL DEFAULT 1,
    received_at    timestamptz NOT NULL,
    decided_at     timestamptz,
    CONSTRAINT one_payment_per_sender_and_end_to_end_id PRIMARY KEY (agent_bic, sender_bic, end_to_end_id),
    CONSTRAINT a_received_status_is_known CHECK (status IN ('PENDING', 'ACCEPTED', 'REJECTED')),
    CONSTRAINT a_decision_has_its_instant CHECK ((status = 'PENDING') = (decided_at IS NULL))
);
CREATE UNIQUE INDEX received_in_order ON received (sequence);

CREATE TABLE paid (
    sequence      bigint GENERATED ALWAYS AS IDENTITY,
    end_to_end_id text        NOT NULL,
    agent_bic     text        NOT NULL,
    message_id    text        NOT NULL,
    uetr          text        NOT NULL,
    from_account  text        NOT NULL REFERENCES account (number),
    to_account    text        NOT NULL,
    amount_minor  bigint      NOT NULL,
    currency      text        NOT NULL,
    debtor_name   text        NOT NULL,
    creditor_name text        NOT NULL,
    status        text        NOT NULL DEFAULT 'UNKNOWN',
    iso_status    text,
    reason_code   text,
    times_sent    integer     NOT NULL DEFAULT 0,
    sent_at       timestamptz NOT NULL,
    answered_at   timestamptz,
    CONSTRAINT one_payment_per_end_to_end_id PRIMARY KEY (agent_bic, end_to_end_id),
    CONSTRAINT a_paid_status_is_known CHECK (status IN ('UNKNOWN', 'ACCEPTED', 'REJECTED'))
);
CREATE INDEX paid_without_an_answer ON paid (sent_at) WHERE status = 'UNKNOWN';

-- The other party of a posting is the bank that sent or was sent the payment.
CREATE TABLE posting (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number        text        NOT NULL,
    currency      text        NOT NULL,
    amount_minor  bigint      NOT NULL,
    direction     text        NOT NULL,
    agent_bic     text        NOT NULL,
    other_bic     text        NOT NULL,
    end_to_end_id text        NOT NULL,
    booked_at     timestamptz NOT NULL,
    CONSTRAINT one_posting_per_payment UNIQUE (direction, agent_bic, other_bic, end_to_end_id),
    CONSTRAINT what_comes_in_adds CHECK ((direction = 'IN') = (amount_minor > 0)),
    CONSTRAINT a_posting_direction_is_known CHECK (direction IN ('IN', 'OUT'))
);

CREATE TABLE control (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    document jsonb   NOT NULL
);
INSERT INTO control (document) VALUES ('{"mode": "accept"}');

INSERT INTO account (number, agent_bic, holder) VALUES
    ('DE08990100100000001001', 'NORDDEFFXXX', 'Erika Musterfrau'),
    ('DE78990100100000001002', 'NORDDEFFXXX', 'Hafenkontor Handels GmbH'),
    ('1000200300', 'NORDDEFFXXX', 'Nordlicht Verlag'),
    ('FR7699002000010000000200107', 'LUTEFRPPXXX', 'Jean Dupont'),
    ('FR7699002000000000200111108', 'LUTEFRPPXXX', 'Atelier Lumiere SARL');

INSERT INTO balance (number, currency, amount_minor)
SELECT number, currency, amount_minor
  FROM account, (VALUES ('USD', 5000000), ('EUR', 5000000), ('GBP', 5000000), ('JPY', 5000000)) AS opening (currency, amount_minor);

GRANT SELECT ON account TO payflow_other_bank;
GRANT SELECT, INSERT, UPDATE ON balance, received, paid TO payflow_other_bank;
GRANT SELECT, INSERT ON posting TO payflow_other_bank;
GRANT SELECT, UPDATE ON control TO payflow_other_bank;
