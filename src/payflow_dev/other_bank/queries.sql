-- control --
SELECT document FROM control;

-- set_control --
UPDATE control SET document = $1;

-- receive --
-- Note payments, each once; a repeat is counted and told by what was noted first.
INSERT INTO received (agent_bic, sender_bic, end_to_end_id, message_id, instruction_id, uetr, account, amount_minor,
                      currency, debtor_name, received_at)
SELECT agent_bic, sender_bic, end_to_end_id, message_id, instruction_id, uetr, account, amount_minor, currency,
       debtor_name, $11
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
              $9::text[], $10::text[])
       AS t (agent_bic, sender_bic, end_to_end_id, message_id, instruction_id, uetr, account, amount_minor, currency,
             debtor_name)
 ORDER BY agent_bic, sender_bic, end_to_end_id
    ON CONFLICT (agent_bic, sender_bic, end_to_end_id) DO UPDATE SET times_received = received.times_received + 1
RETURNING agent_bic, sender_bic, end_to_end_id, message_id, instruction_id, uetr, account, amount_minor, currency,
          debtor_name, received_at, status, reason_code;

-- lock_received --
-- Payments that were noted, locked in one order everywhere.
SELECT agent_bic, sender_bic, end_to_end_id, message_id, instruction_id, uetr, account, amount_minor, currency,
       debtor_name, received_at, status, reason_code
  FROM received
 WHERE agent_bic = $1
   AND sender_bic = $2
   AND end_to_end_id = ANY($3::text[])
 ORDER BY agent_bic, sender_bic, end_to_end_id
   FOR NO KEY UPDATE;

-- decide --
-- Write decisions on payments that have none.
UPDATE received
   SET status = t.status, reason_code = t.reason_code, decided_at = $6
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
       AS t (agent_bic, sender_bic, end_to_end_id, status, reason_code)
 WHERE received.agent_bic = t.agent_bic
   AND received.sender_bic = t.sender_bic
   AND received.end_to_end_id = t.end_to_end_id
   AND received.status = 'PENDING';

-- lock_balances --
-- Ordered: one order everywhere, or two messages can deadlock.
SELECT 1 FROM balance WHERE number = ANY($1::text[]) ORDER BY number, currency FOR NO KEY UPDATE;

-- book --
-- Post payments and change the balances by them. one_posting_per_payment refuses what only a bug could book twice.
WITH posted AS (
    INSERT INTO posting (number, currency, amount_minor, direction, agent_bic, other_bic, end_to_end_id, booked_at)
    SELECT number, currency, amount_minor, direction, agent_bic, other_bic, end_to_end_id, $8
      FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[])
           AS t (number, currency, amount_minor, direction, agent_bic, other_bic, end_to_end_id)
    RETURNING number, currency, amount_minor
)
UPDATE balance
   SET amount_minor = balance.amount_minor + total.amount_minor
  FROM (SELECT number, currency, sum(amount_minor)::bigint AS amount_minor FROM posted GROUP BY number, currency) AS total
 WHERE balance.number = total.number
   AND balance.currency = total.currency;

-- accounts --
SELECT number, agent_bic, holder FROM account ORDER BY number;

-- pay --
-- Note a payment to another bank before it is sent; a known end-to-end id changes nothing.
INSERT INTO paid (end_to_end_id, agent_bic, message_id, uetr, from_account, to_account, amount_minor, currency,
                  debtor_name, creditor_name, sent_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT DO NOTHING;

-- find_paid --
SELECT end_to_end_id, agent_bic, message_id, uetr, from_account, to_account, amount_minor, currency, debtor_name,
       creditor_name, sent_at, status, iso_status, reason_code
  FROM paid
 WHERE agent_bic = $1
   AND end_to_end_id = $2;

-- taken_back --
SELECT EXISTS (
    SELECT 1 FROM received
     WHERE agent_bic = $1 AND starts_with(end_to_end_id, $2) AND end_to_end_id <> $3 AND status = 'ACCEPTED'
);

-- unanswered --
SELECT end_to_end_id, agent_bic, message_id, uetr, from_account, to_account, amount_minor, currency, debtor_name,
       creditor_name, sent_at, status, iso_status, reason_code
  FROM paid
 WHERE status = 'UNKNOWN'
   AND sent_at < $1
 ORDER BY sent_at
 LIMIT 50;

-- count_sending --
UPDATE paid SET times_sent = times_sent + 1 WHERE agent_bic = $1 AND end_to_end_id = $2;

-- answer_paid --
-- Write the answer to a payment that has none; returns the row when this was its final one.
UPDATE paid
   SET status = $3, iso_status = $4, reason_code = $5, answered_at = CASE WHEN $3 = 'UNKNOWN' THEN NULL ELSE $6::timestamptz END
 WHERE agent_bic = $1
   AND end_to_end_id = $2
   AND status = 'UNKNOWN'
RETURNING status, from_account, currency, amount_minor;

-- books_received --
SELECT sequence, agent_bic, sender_bic, end_to_end_id, uetr, account, amount_minor, currency, debtor_name, status,
       reason_code, times_received, received_at, decided_at
  FROM received
 WHERE ($1::text IS NULL OR end_to_end_id = $1)
   AND sequence > $2
 ORDER BY sequence
 LIMIT $3;

-- books_paid --
SELECT sequence, agent_bic, end_to_end_id, from_account, to_account, amount_minor, currency, status, iso_status,
       reason_code, times_sent, sent_at, answered_at
  FROM paid
 WHERE ($1::text IS NULL OR end_to_end_id = $1)
   AND sequence > $2
 ORDER BY sequence
 LIMIT $3;

-- books_balances --
SELECT account.number, account.agent_bic, account.holder, balance.currency, balance.amount_minor
  FROM account
  JOIN balance USING (number)
 ORDER BY account.number, balance.currency;

-- books_totals --
SELECT 'received' AS what, status, currency, count(*) AS payments, sum(amount_minor)::bigint AS amount_minor
  FROM received GROUP BY status, currency
UNION ALL
SELECT 'paid', status, currency, count(*), sum(amount_minor)::bigint FROM paid GROUP BY status, currency
 ORDER BY 1, 2, 3;
