-- ledger_size --
-- What there is to look at. The sequences of all accounts are as many as their postings, if the ledger is whole.
SELECT (SELECT count(*) FROM account_balance) AS accounts,
       (SELECT coalesce(sum(sequence), 0)::bigint FROM account_balance) AS postings,
       (SELECT count(*) FROM fund_reservations WHERE state = 'HELD') AS open_holds;

-- partitions --
-- The partitions of a table with their pages.
SELECT relation.relname AS name, pg_relation_size(relation.oid) / current_setting('block_size')::bigint AS pages
  FROM pg_inherits JOIN pg_class AS relation ON relation.oid = inhrelid
 WHERE inhparent = $1::text::regclass
 ORDER BY relation.relname;

-- runs --
-- The next $4 postings after ($1, $2, $3) in the order of accounts and instants, as runs: postings of an account that are
-- numbered one after the other and each begin with the balance that the one before came to. One run per account is right.
WITH chunk AS MATERIALIZED (
    SELECT account_id, booked_at, sequence, amount_minor, balance_minor
      FROM posting
     WHERE (account_id, booked_at, sequence) > ($1, $2, $3)
     ORDER BY account_id, booked_at, sequence
     LIMIT $4
), marked AS (
    SELECT account_id, sequence, amount_minor, balance_minor,
           CASE WHEN sequence = lag(sequence) OVER in_order + 1
                     AND balance_minor - amount_minor = lag(balance_minor) OVER in_order THEN 0 ELSE 1 END AS begins
      FROM chunk
    WINDOW in_order AS (PARTITION BY account_id ORDER BY sequence)
), numbered AS (
    SELECT *, sum(begins) OVER (PARTITION BY account_id ORDER BY sequence ROWS UNBOUNDED PRECEDING) AS run FROM marked
), run AS (
    SELECT account_id, min(sequence) AS first, max(sequence) AS last, count(*) AS postings,
           max(balance_minor - amount_minor) FILTER (WHERE begins = 1) AS before_minor, sum(amount_minor)::bigint AS total_minor
      FROM numbered
     GROUP BY account_id, run
), ending AS (
    SELECT account_id, booked_at, sequence FROM chunk
     ORDER BY account_id DESC, booked_at DESC, sequence DESC
     LIMIT 1
)
SELECT run.*, account.number, balance.posted_minor, balance.sequence,
       ending.account_id AS end_account_id, ending.booked_at AS end_booked_at, ending.sequence AS end_sequence
  FROM run CROSS JOIN ending
  LEFT JOIN account_balance AS balance ON balance.account_id = run.account_id
  LEFT JOIN accounts AS account ON account.account_id = run.account_id
 ORDER BY run.account_id, first;

-- accounts_without_postings --
-- Accounts that claim to have postings and have none.
SELECT account.number, balance.posted_minor, balance.sequence
  FROM account_balance AS balance
  JOIN accounts AS account USING (account_id)
 WHERE (balance.posted_minor <> 0 OR balance.sequence <> 0)
   AND NOT EXISTS (SELECT FROM posting WHERE posting.account_id = balance.account_id)
 LIMIT 100;

-- entry_sums --
-- The entries whose postings stand on the pages $1 to $2 of a partition: those that are balanced within these pages summed
-- up per day (their number, and the sum of the hashes of their ids), the others one by one and per currency.
WITH leg AS (
    SELECT entry_id, currency, sum(amount_minor)::bigint AS amount_minor, count(*) AS postings, min(posting.booked_at) AS at
      FROM {partition} AS posting
      LEFT JOIN account_balance USING (account_id)
     WHERE posting.ctid >= $1::tid AND posting.ctid < $2::tid
     GROUP BY entry_id, currency
), entry AS (
    SELECT entry_id, bool_and(amount_minor = 0) AND sum(postings) >= 2 AS is_balanced,
           (min(at) AT TIME ZONE 'UTC')::date AS day, sum(postings)::bigint AS postings
      FROM leg GROUP BY entry_id
)
SELECT NULL::uuid AS entry_id, NULL::text AS currency, day, sum(uuid_hash_extended(entry_id, 0)) AS hash,
       count(*) AS entries, sum(postings)::bigint AS postings, 0::bigint AS amount_minor
  FROM entry WHERE is_balanced GROUP BY day
UNION ALL
SELECT entry_id, currency, entry.day, uuid_hash_extended(entry_id, 0), 1, leg.postings, leg.amount_minor
  FROM entry JOIN leg USING (entry_id) WHERE NOT is_balanced;

-- journal_sums --
-- The entries on the pages $1 to $2 of a partition per day: their number, and the sum of the hashes of their ids.
SELECT (booked_at AT TIME ZONE 'UTC')::date AS day, sum(uuid_hash_extended(entry_id, 0)) AS hash, count(*) AS entries
  FROM {partition} AS entry
 WHERE entry.ctid >= $1::tid AND entry.ctid < $2::tid
 GROUP BY 1;

-- payments_booked_twice --
SELECT payment_id, count(*) AS entries FROM {partition}
 WHERE payment_id IS NOT NULL
 GROUP BY payment_id HAVING count(*) > 1
 LIMIT 100;

-- entries_of_a_day_without_postings --
SELECT entry_id FROM journal_entry
 WHERE booked_at >= $1 AND booked_at < $2
   AND entry_id NOT IN (SELECT entry_id FROM posting WHERE booked_at >= $1 AND booked_at < $2)
 LIMIT 100;

-- postings_of_a_day_without_entry --
SELECT DISTINCT entry_id FROM posting
 WHERE booked_at >= $1 AND booked_at < $2
   AND entry_id NOT IN (SELECT entry_id FROM journal_entry WHERE booked_at >= $1 AND booked_at < $2)
 LIMIT 100;

-- holds --
-- Held balances that differ from the open reservations.
SELECT account.number, balance.held_minor, coalesce(total.amount_minor, 0)::bigint AS open_minor
  FROM account_balance AS balance
  JOIN accounts AS account USING (account_id)
  LEFT JOIN (SELECT account_id, sum(amount_minor) AS amount_minor
               FROM fund_reservations WHERE state = 'HELD' GROUP BY account_id) AS total USING (account_id)
 WHERE balance.held_minor <> coalesce(total.amount_minor, 0)
 LIMIT 100;

-- totals --
-- Currencies whose accounts do not sum to zero; customers' accounts below zero.
SELECT 'all accounts in ' || currency || ' sum to ' || sum(posted_minor)::text AS broken
  FROM account_balance
 GROUP BY currency HAVING sum(posted_minor) <> 0
UNION ALL
SELECT 'account ' || number || ' has ' || (posted_minor - held_minor)::text || ' available'
  FROM account_balance JOIN accounts USING (account_id)
 WHERE NOT is_internal AND posted_minor - held_minor < 0
 LIMIT 100;
