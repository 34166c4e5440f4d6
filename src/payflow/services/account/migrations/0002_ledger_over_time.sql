-- The ledger over time: entries and postings live in a partition per month, so that what is written today costs the same
-- whatever lies behind; instants of an account's postings never go back; balances and holds can be asked for as of any
-- instant; verifications leave a trace. See docs/adr/0005-ledger-in-months.md.

ALTER TABLE accounts DROP CONSTRAINT an_account_kind_is_known;
ALTER TABLE accounts ADD CONSTRAINT an_account_kind_is_known
      CHECK (kind IN ('customer', 'nostro', 'opening', 'suspense', 'fees', 'blocked'));

-- The instant of the account's last posting: the next one is not before it, whatever clocks say, so that the postings
-- up to an instant are the first ones of the account.
ALTER TABLE account_balance ADD COLUMN booked_at timestamptz;
UPDATE account_balance AS balance SET booked_at = last.booked_at
  FROM (SELECT account_id, max(booked_at) AS booked_at FROM posting GROUP BY account_id) AS last
 WHERE balance.account_id = last.account_id;

CREATE INDEX ended_holds ON fund_reservations (account_id, ended_at) WHERE ended_at IS NOT NULL;

-- The least id that sorts with UUIDv7 made at an instant.
CREATE FUNCTION first_id_of(instant timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE
RETURN (lpad(to_hex(floor(extract(epoch FROM instant) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- Where months begin: what was booked before stays in the tables that held it, which become the first partitions.
DO $$
DECLARE
    last_at timestamptz := (SELECT max(booked_at) FROM journal_entry);
    begin_at timestamptz := date_trunc('month', now(), 'UTC');
BEGIN
    IF last_at >= begin_at THEN
        begin_at := date_trunc('month', last_at, 'UTC') + interval '1 month';
    END IF;
    EXECUTE format('CREATE FUNCTION ledger_months_begin_at() RETURNS timestamptz LANGUAGE sql IMMUTABLE '
                   'RETURN %L::timestamptz',
                   begin_at);
END $$;

ALTER TABLE posting RENAME TO posting_before;
ALTER TABLE posting_before DROP CONSTRAINT posting_pkey;
-- The payment of its entry, which leads to the partition that has the entry. Empty in entries without a payment, and in
-- postings from before this migration: `posting_before` and `journal_entry_before` belong together by the entry's id.
ALTER TABLE posting_before ADD COLUMN payment_id uuid;
CREATE TABLE posting (LIKE posting_before INCLUDING CONSTRAINTS) PARTITION BY RANGE (booked_at);
ALTER TABLE posting ADD PRIMARY KEY (account_id, booked_at, sequence);
CREATE TABLE posting_other PARTITION OF posting DEFAULT;

ALTER TABLE journal_entry RENAME TO journal_entry_before;
ALTER TABLE journal_entry_before RENAME CONSTRAINT journal_entry_pkey TO journal_entry_before_pkey;
ALTER TABLE journal_entry_before RENAME CONSTRAINT one_booking_per_payment TO journal_entry_before_payment_id_key;
CREATE TABLE journal_entry (LIKE journal_entry_before INCLUDING CONSTRAINTS) PARTITION BY RANGE (payment_id);
ALTER TABLE journal_entry ADD CONSTRAINT one_booking_per_payment UNIQUE (payment_id);
-- Ids that tell no time: payments that came in from other banks, and entries without a payment. An entry is looked up by
-- its payment; only here and in `journal_entry_before` also by its own id.
CREATE TABLE journal_entry_other PARTITION OF journal_entry DEFAULT;
CREATE INDEX journal_entry_other_by_id ON journal_entry_other (entry_id);

DO $$
DECLARE
    begin_at timestamptz := ledger_months_begin_at();
BEGIN
    INSERT INTO journal_entry_other SELECT * FROM journal_entry_before
     WHERE payment_id IS NULL OR payment_id >= first_id_of(begin_at);
    DELETE FROM journal_entry_before WHERE payment_id IS NULL OR payment_id >= first_id_of(begin_at);
    EXECUTE format('ALTER TABLE posting ATTACH PARTITION posting_before FOR VALUES FROM (MINVALUE) TO (%L)', begin_at);
    EXECUTE format('ALTER TABLE journal_entry ATTACH PARTITION journal_entry_before FOR VALUES FROM (MINVALUE) TO (%L)',
                   first_id_of(begin_at));
END $$;

-- Make the partitions of this month and the next three; how many were made. It does nothing else, so that the service's
-- role can call it with its owner's rights. What has its place in a new partition and was written to the default one
-- (by a clock far ahead, or an id that happens to look like that month's) moves with it.
CREATE FUNCTION make_ledger_partitions() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = account, pg_temp
SET timezone = 'UTC'
-- Whoever books waits behind the lock that this waits for: rather another time.
SET lock_timeout = '200ms'
AS $$
DECLARE
    month timestamptz := date_trunc('month', now());
    following timestamptz;
    suffix text;
    made integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('payflow.account.partitions')) THEN
        RETURN 0;
    END IF;
    WHILE month <= date_trunc('month', now()) + interval '3 months' LOOP
        following := month + interval '1 month';
        suffix := to_char(month, 'YYYY_MM');
        IF month >= ledger_months_begin_at() AND to_regclass('account.posting_' || suffix) IS NULL THEN
            PERFORM make_ledger_partition('posting', suffix, 'booked_at', month::text, following::text);
            PERFORM make_ledger_partition('journal_entry', suffix, 'payment_id',
                                          first_id_of(month)::text, first_id_of(following)::text);
            made := made + 1;
        END IF;
        month := following;
    END LOOP;
    RETURN made;
END $$;

CREATE FUNCTION make_ledger_partition(parent text, suffix text, key text, begins text, ends text) RETURNS void
LANGUAGE plpgsql SET search_path = account, pg_temp AS $$
DECLARE
    child text := parent || '_' || suffix;
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
    EXECUTE format('GRANT SELECT ON %I TO payflow_account', child);
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent || '_other');
    EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= %L AND %I < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
                   parent || '_other', key, begins, key, ends, child);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, begins, ends);
END $$;

SELECT make_ledger_partitions();

CREATE TABLE ledger_verification (
    began_at    timestamptz NOT NULL,
    verified_at timestamptz PRIMARY KEY,
    accounts    bigint      NOT NULL,
    entries     bigint      NOT NULL,
    postings    bigint      NOT NULL,
    open_holds  bigint      NOT NULL,
    broken      text[]      NOT NULL
);

REVOKE ALL ON posting_before, journal_entry_before FROM payflow_account;
REVOKE ALL ON FUNCTION make_ledger_partitions(), make_ledger_partition(text, text, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_ledger_partitions() TO payflow_account;
-- Entries and postings are written through their parents alone; a partition by itself is only read (by `verify`).
GRANT SELECT ON posting_before, posting_other, journal_entry_before, journal_entry_other TO payflow_account;
GRANT SELECT, INSERT ON journal_entry, posting, ledger_verification TO payflow_account;
