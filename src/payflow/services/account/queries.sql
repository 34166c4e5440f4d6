-- hold_accounts --
-- On which account each payment's open hold is, so that its balance can be locked.
SELECT payment_id, account_id FROM fund_reservations WHERE payment_id = ANY($1::uuid[]);

-- lock_balances --
-- The balances that a batch is about to decide on, locked. Ordered: one order everywhere, or two batches can deadlock.
SELECT account_id, currency, state, is_owner_blocked, is_internal, posted_minor, held_minor, sequence, booked_at,
       version
  FROM account_balance
 WHERE account_id = ANY($1::uuid[])
 ORDER BY account_id
   FOR NO KEY UPDATE;

-- balances --
-- Balances as they are, not locked: for a batch that is written only if their versions are still the same (book_whole).
SELECT account_id, currency, state, is_owner_blocked, is_internal, posted_minor, held_minor, sequence, booked_at,
       version
  FROM account_balance
 WHERE account_id = ANY($1::uuid[]);

-- outcomes --
-- What earlier commands for these payments came to: entry, hold and refusals, one row each. $2 and $3 are the least and
-- the greatest id: partitions that cannot have them are left out.
SELECT 'entry' AS what, payment_id, entry_id AS id, kind AS word, fencing_token, booked_at AS at,
       NULL::uuid AS account_id, NULL::bigint AS amount_minor, NULL::text AS currency,
       NULL::timestamptz AS expires_at, NULL::timestamptz AS ended_at, NULL::text AS text
  FROM journal_entry WHERE payment_id = ANY($1::uuid[]) AND payment_id BETWEEN $2 AND $3
UNION ALL
SELECT 'hold', payment_id, hold_id, state, fencing_token, placed_at,
       account_id, amount_minor, currency, expires_at, ended_at, end_reason
  FROM fund_reservations WHERE payment_id = ANY($1::uuid[])
UNION ALL
SELECT 'refusal', payment_id, NULL, step, fencing_token, refused_at,
       NULL, NULL, code, NULL, NULL, detail
  FROM refused_command WHERE payment_id = ANY($1::uuid[]);

-- book --
-- Write journal entries, their postings, and the balances that follow from them. The balances are the absolute values
-- that the domain computed from the locked rows. $15, $16 and $17 are the instants of entries, postings and balances;
-- empty where all are $5.
WITH entry AS (
    INSERT INTO journal_entry (entry_id, payment_id, kind, fencing_token, booked_at)
    SELECT entry_id, payment_id, kind, fencing_token, coalesce(booked_at, $5)
      FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $15::timestamptz[])
           AS t (entry_id, payment_id, kind, fencing_token, booked_at)
), leg AS (
    INSERT INTO posting (account_id, sequence, entry_id, payment_id, amount_minor, balance_minor, booked_at)
    SELECT account_id, sequence, entry_id, payment_id, amount_minor, balance_minor, coalesce(booked_at, $5)
      FROM unnest($6::uuid[], $7::bigint[], $8::uuid[], $18::uuid[], $9::bigint[], $10::bigint[],
                  $16::timestamptz[])
           AS t (account_id, sequence, entry_id, payment_id, amount_minor, balance_minor, booked_at)
)
UPDATE account_balance AS balance
   SET posted_minor = t.posted_minor, held_minor = t.held_minor, sequence = t.sequence,
       booked_at = CASE WHEN $17::timestamptz[] = '{}' THEN $5 ELSE t.booked_at END,
       version = balance.version + 1
  FROM unnest($11::uuid[], $12::bigint[], $13::bigint[], $14::bigint[], $17::timestamptz[])
       AS t (account_id, posted_minor, held_minor, sequence, booked_at)
 WHERE balance.account_id = t.account_id;

-- book_whole --
-- Write a batch of first transfers that was decided on balances known by their versions, if those versions are still the
-- true ones and nothing was ever written about the payments; else nothing. $26 and $27 are the least and the greatest of
-- the payments' ids: partitions that cannot have them are left out. One statement instead of a transaction of five.
-- Where an instant was closed that is not before the batch's own (close_instants), nothing is written either. A
-- lock that was waited for shows the row as it then is, and whatever else is written about a payment raises its debtor's
-- version: so the versions also answer for what this statement's snapshot cannot see.
WITH known AS (
    SELECT balance.account_id
      FROM account_balance AS balance
      JOIN unnest($11::uuid[], $18::bigint[], $17::timestamptz[]) AS t (account_id, version, booked_at)
           USING (account_id, version)
     WHERE balance.booked_at IS NULL OR balance.booked_at <= coalesce(t.booked_at, $5)
     ORDER BY balance.account_id
       FOR NO KEY UPDATE OF balance
), whole AS (
    SELECT count(*) = cardinality($11::uuid[])
           AND NOT EXISTS (SELECT FROM journal_entry WHERE payment_id = ANY($19::uuid[])
                            AND payment_id BETWEEN $26 AND $27)
           AND NOT EXISTS (SELECT FROM fund_reservations WHERE payment_id = ANY($19::uuid[]))
           AND NOT EXISTS (SELECT FROM refused_command WHERE payment_id = ANY($19::uuid[])) AS is_whole
      FROM known
), entry AS (
    INSERT INTO journal_entry (entry_id, payment_id, kind, fencing_token, booked_at)
    SELECT entry_id, payment_id, kind, fencing_token, coalesce(booked_at, $5)
      FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $15::timestamptz[])
           AS t (entry_id, payment_id, kind, fencing_token, booked_at),
           whole
     WHERE is_whole
), leg AS (
    INSERT INTO posting (account_id, sequence, entry_id, payment_id, amount_minor, balance_minor, booked_at)
    SELECT account_id, sequence, entry_id, payment_id, amount_minor, balance_minor, coalesce(booked_at, $5)
      FROM unnest($6::uuid[], $7::bigint[], $8::uuid[], $25::uuid[], $9::bigint[], $10::bigint[],
                  $16::timestamptz[])
           AS t (account_id, sequence, entry_id, payment_id, amount_minor, balance_minor, booked_at), whole
     WHERE is_whole
), refused AS (
    INSERT INTO refused_command (payment_id, step, code, detail, fencing_token, refused_at)
    SELECT payment_id, step, code, detail, fencing_token, $5
      FROM unnest($20::uuid[], $21::text[], $22::text[], $23::text[], $24::bigint[])
           AS t (payment_id, step, code, detail, fencing_token), whole
     WHERE is_whole
), moved AS (
    UPDATE account_balance AS balance
       SET posted_minor = t.posted_minor, held_minor = t.held_minor, sequence = t.sequence,
           booked_at = CASE WHEN $17::timestamptz[] = '{}' THEN $5 ELSE t.booked_at END,
           version = balance.version + 1
      FROM unnest($11::uuid[], $12::bigint[], $13::bigint[], $14::bigint[], $17::timestamptz[])
           AS t (account_id, posted_minor, held_minor, sequence, booked_at), whole
     WHERE balance.account_id = t.account_id AND is_whole
)
SELECT is_whole FROM whole;

-- save_holds --
-- Write holds as the domain has them: placed, kept, captured or released.
INSERT INTO fund_reservations (payment_id, hold_id, account_id, amount_minor, currency, state, fencing_token,
                               placed_at, expires_at, ended_at, end_reason)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::bigint[],
                     $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::text[])
    ON CONFLICT (payment_id) DO UPDATE
   SET state = excluded.state, fencing_token = excluded.fencing_token, expires_at = excluded.expires_at,
       ended_at = excluded.ended_at, end_reason = excluded.end_reason;

-- save_refusals --
-- Remember refusals; the first one stays.
INSERT INTO refused_command (payment_id, step, code, detail, fencing_token, refused_at)
SELECT payment_id, step, code, detail, fencing_token, $6
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[])
       AS t (payment_id, step, code, detail, fencing_token)
    ON CONFLICT (payment_id, step) DO NOTHING;

-- insert_customers --
-- New customers; those whose id exists return no row.
INSERT INTO customers (customer_id, name_encrypted, email_encrypted, phone_encrypted, country, created_at)
SELECT customer_id, name, email, phone, country, $6
  FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bytea[], $5::text[])
       AS t (customer_id, name, email, phone, country)
    ON CONFLICT (customer_id) DO NOTHING
RETURNING customer_id;

-- insert_accounts --
-- New customers' accounts with their empty balances; those whose number exists return no row. The customers are locked,
-- so that one who is being blocked meanwhile has no account that does not know of it.
WITH opened AS (
    INSERT INTO accounts (account_id, number, customer_id, kind, currency, opened_at)
    SELECT account_id, number, customer_id, 'customer', currency, $5
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS t (account_id, number, customer_id, currency)
        ON CONFLICT (number) DO NOTHING
    RETURNING account_id, number, currency, customer_id
), empty AS (
    INSERT INTO account_balance (account_id, currency, is_internal, is_owner_blocked)
    SELECT account_id, currency, false, customer.state = 'BLOCKED'
      FROM opened
      JOIN (SELECT customer_id, state FROM customers WHERE customer_id = ANY($3::text[]) FOR SHARE) AS customer
           USING (customer_id)
)
SELECT account_id FROM opened;

-- insert_internal_account --
-- An internal account with its empty balance; nothing when it exists.
WITH opened AS (
    INSERT INTO accounts (account_id, number, kind, currency, opened_at)
    VALUES ($1, $2, $3, $4, now())
        ON CONFLICT (number) DO NOTHING
    RETURNING account_id, currency
)
INSERT INTO account_balance (account_id, currency, is_internal) SELECT account_id, currency, true FROM opened;

-- find_internal_account --
SELECT account_id FROM accounts WHERE number = $1 AND kind <> 'customer';

-- parties --
-- Customers' accounts with their owners.
SELECT account.number, account.account_id, account.currency, customer.customer_id, customer.name_encrypted,
       customer.country
  FROM accounts AS account
  JOIN customers AS customer USING (customer_id)
 WHERE account.number = ANY($1::text[]);

-- customers --
SELECT customer_id, name_encrypted, email_encrypted, phone_encrypted, country, state, created_at
  FROM customers
 WHERE customer_id = ANY($1::text[]);

-- accounts --
-- Customers' accounts with their balances, by number.
SELECT account.number, account.customer_id, account.currency, account.state, account.opened_at,
       balance.posted_minor, balance.held_minor
  FROM accounts AS account
  JOIN account_balance AS balance USING (account_id)
 WHERE account.number = ANY($1::text[])
   AND account.kind = 'customer';

-- open_instants --
-- The accounts on which something could still be booked at these instants or before. Nothing is before an account is.
SELECT account.number, pg_is_in_recovery() AS is_replica
  FROM unnest($1::text[], $2::timestamptz[]) AS wanted (number, at)
  JOIN accounts AS account USING (number)
  JOIN account_balance AS balance USING (account_id)
 WHERE wanted.at >= account.opened_at
   AND (balance.booked_at IS NULL OR balance.booked_at <= wanted.at);

-- close_instants --
-- From here on nothing is booked on these accounts at these instants or before: who decides later finds them as the
-- accounts' latest. Accounts that are being booked on are left out, and nobody is waited for with a connection in hand.
-- The balances stay what they are, so that their versions do, too: book_whole looks at the instant by itself.
WITH free AS (
    SELECT account.number, balance.account_id, wanted.at
      FROM unnest($1::text[], $2::timestamptz[]) AS wanted (number, at)
      JOIN accounts AS account USING (number)
      JOIN account_balance AS balance USING (account_id)
     WHERE wanted.at >= account.opened_at
       AND (balance.booked_at IS NULL OR balance.booked_at <= wanted.at)
       FOR NO KEY UPDATE OF balance SKIP LOCKED
)
UPDATE account_balance AS balance
   SET booked_at = free.at + interval '1 microsecond'
  FROM free
 WHERE balance.account_id = free.account_id
RETURNING free.number;

-- accounts_at --
-- Customers' accounts with their balances as of an instant each: after everything booked until then, and with the holds
-- that were open then.
SELECT wanted.place, account.number, account.customer_id, account.currency, account.state, account.opened_at,
       coalesce(posted.balance_minor, 0) AS posted_minor, held.amount_minor AS held_minor
  FROM unnest($1::text[], $2::timestamptz[]) WITH ORDINALITY AS wanted (number, at, place)
  JOIN accounts AS account USING (number)
  LEFT JOIN LATERAL (SELECT balance_minor
                       FROM posting
                      WHERE posting.account_id = account.account_id AND booked_at <= wanted.at
                      ORDER BY booked_at DESC, sequence DESC
                      LIMIT 1) AS posted ON true
  CROSS JOIN LATERAL (SELECT coalesce(sum(amount_minor), 0)::bigint AS amount_minor
                        FROM (SELECT amount_minor FROM fund_reservations AS hold
                               WHERE hold.account_id = account.account_id AND state = 'HELD' AND placed_at <= wanted.at
                              UNION ALL
                              SELECT amount_minor FROM fund_reservations AS hold
                               WHERE hold.account_id = account.account_id AND ended_at > wanted.at
                                 AND ended_at IS NOT NULL AND placed_at <= wanted.at) AS open_then) AS held
 WHERE account.kind = 'customer';

-- accounts_of --
-- The accounts of customers with their balances.
SELECT account.number, account.customer_id, account.currency, account.state, account.opened_at,
       balance.posted_minor, balance.held_minor
  FROM accounts AS account
  JOIN account_balance AS balance USING (account_id)
 WHERE account.customer_id = ANY($1::text[])
 ORDER BY account.number;

-- entries --
-- Statement lines of one account, newest first: those of [$2, $3) that come after the line ($4, $5). An entry is found by
-- its payment, whose id tells its month; one without a payment, or from before there were months, by its own id.
SELECT line.sequence, line.entry_id, coalesce(line.payment_id, undated.payment_id) AS payment_id,
       coalesce(entry.kind, undated.kind, 'unknown') AS kind, line.amount_minor, line.balance_minor, account.currency, line.booked_at
  FROM accounts AS account
 CROSS JOIN LATERAL (SELECT *
                       FROM posting
                      WHERE posting.account_id = account.account_id AND booked_at >= $2 AND booked_at < $3
                        AND booked_at <= $4 AND (booked_at, sequence) < ($4, $5)
                      ORDER BY booked_at DESC, sequence DESC
                      LIMIT $6) AS line
  LEFT JOIN journal_entry AS entry ON entry.payment_id = line.payment_id
  LEFT JOIN LATERAL (SELECT kind, payment_id FROM journal_entry_other
                      WHERE line.payment_id IS NULL AND entry_id = line.entry_id
                     UNION ALL
                     SELECT kind, payment_id FROM journal_entry_before
                      WHERE line.payment_id IS NULL AND entry_id = line.entry_id) AS undated ON true
 WHERE account.number = $1
 ORDER BY line.booked_at DESC, line.sequence DESC;

-- entries_oldest_first --
-- The same, oldest first.
SELECT line.sequence, line.entry_id, coalesce(line.payment_id, undated.payment_id) AS payment_id,
       coalesce(entry.kind, undated.kind, 'unknown') AS kind, line.amount_minor, line.balance_minor, account.currency, line.booked_at
  FROM accounts AS account
 CROSS JOIN LATERAL (SELECT *
                       FROM posting
                      WHERE posting.account_id = account.account_id AND booked_at >= $2 AND booked_at < $3
                        AND booked_at >= $4 AND (booked_at, sequence) > ($4, $5)
                      ORDER BY booked_at, sequence
                      LIMIT $6) AS line
  LEFT JOIN journal_entry AS entry ON entry.payment_id = line.payment_id
  LEFT JOIN LATERAL (SELECT kind, payment_id FROM journal_entry_other
                      WHERE line.payment_id IS NULL AND entry_id = line.entry_id
                     UNION ALL
                     SELECT kind, payment_id FROM journal_entry_before
                      WHERE line.payment_id IS NULL AND entry_id = line.entry_id) AS undated ON true
 WHERE account.number = $1
 ORDER BY line.booked_at, line.sequence;

-- range_balances --
-- An account's posted balance before and after [$2, $3).
SELECT coalesce((SELECT balance_minor FROM posting
                  WHERE posting.account_id = account.account_id AND booked_at < $2
                  ORDER BY booked_at DESC, sequence DESC LIMIT 1), 0) AS opening_minor,
       coalesce((SELECT balance_minor FROM posting
                  WHERE posting.account_id = account.account_id AND booked_at < $3
                  ORDER BY booked_at DESC, sequence DESC LIMIT 1), 0) AS closing_minor
  FROM accounts AS account
 WHERE account.number = $1;

-- set_customer_state --
-- Change a customer's state, also where the ledger looks: on the balances of all their accounts.
WITH changed AS (
    UPDATE customers SET state = $2, version = version + 1 WHERE customer_id = $1 RETURNING version
), told AS (
    UPDATE account_balance AS balance SET is_owner_blocked = ($2 = 'BLOCKED'), version = balance.version + 1
      FROM accounts AS account
     WHERE account.customer_id = $1 AND balance.account_id = account.account_id
)
SELECT version FROM changed;

-- set_account_state --
-- Change an account's state, also where the ledger looks: on its balance.
WITH changed AS (
    UPDATE accounts SET state = $2, version = version + 1 WHERE number = $1 AND kind = 'customer'
    RETURNING account_id, version
), told AS (
    UPDATE account_balance AS balance SET state = $2, version = balance.version + 1 FROM changed WHERE balance.account_id = changed.account_id
)
SELECT version FROM changed;

-- expired_holds --
SELECT payment_id
  FROM fund_reservations
 WHERE state = 'HELD' AND expires_at IS NOT NULL AND expires_at <= $1
 ORDER BY expires_at
 LIMIT $2;

-- claim_verification --
-- Whether nobody else is verifying; until the end of the transaction nobody else does.
SELECT pg_try_advisory_xact_lock(hashtext('payflow.account.verification'));

-- last_verification --
SELECT verified_at, cardinality(broken) AS broken FROM ledger_verification ORDER BY verified_at DESC LIMIT 1;

-- first_account_at --
-- The ids of customers' accounts are made in the order of time.
SELECT opened_at FROM accounts WHERE kind = 'customer' ORDER BY account_id LIMIT 1;

-- save_verification --
INSERT INTO ledger_verification (began_at, verified_at, accounts, entries, postings, open_holds, broken)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- make_partitions --
SELECT make_ledger_partitions();

-- stray_rows --
-- What stands in the default partitions and has a month: written by a clock far ahead, or because no partition was made
-- in time. Ids of incoming payments (not version 7) and entries without a payment belong there.
SELECT (SELECT count(*) FROM posting_other)
       + (SELECT count(*) FROM journal_entry_other WHERE get_byte(uuid_send(payment_id), 6) >> 4 = 7);
