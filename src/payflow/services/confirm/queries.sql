-- claim --
-- Store new payments with their keys and the steps that they have taken already. A payment whose key or transaction_id its customer has
-- used before returns no row and changes nothing; of two with the same key in one batch the first stays.
WITH claimed AS (
    INSERT INTO transactions (payment_id, customer_id, idempotency_key, fingerprint, transaction_id, amount,
        amount_minor, currency, debtor_account, creditor_account, creditor_name_encrypted, creditor_country,
        creditor_agent, remittance_encrypted, debtor_account_id, creditor_account_id, agent_bic, state, version,
        fencing_token, leased_until, due_at, reason, error_code, error_detail, traceparent, received_at, updated_at,
        execute_at, bulk_id)
    SELECT payment_id, customer_id, idempotency_key, fingerprint, transaction_id, amount,
           amount_minor, currency, debtor_account, creditor_account, creditor_name, creditor_country,
           creditor_agent, remittance, debtor_account_id, creditor_account_id, agent_bic, state, version,
           1, leased_until, due_at, reason, error_code, error_detail, traceparent, $25, $25,
           execute_at, bulk_id
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[],
                  $7::bigint[], $8::text[], $9::text[], $10::text[], $11::bytea[], $12::text[],
                  $13::text[], $14::bytea[], $15::uuid[], $16::uuid[], $17::text[], $18::text[], $19::int[],
                  $20::timestamptz[], $21::timestamptz[], $22::text[], $23::text[], $24::text[], $26::text[],
                  $32::timestamptz[], $33::uuid[])
           AS t (payment_id, customer_id, idempotency_key, fingerprint, transaction_id, amount,
                 amount_minor, currency, debtor_account, creditor_account, creditor_name, creditor_country,
                 creditor_agent, remittance, debtor_account_id, creditor_account_id, agent_bic, state, version,
                 leased_until, due_at, reason, error_code, error_detail, traceparent, execute_at, bulk_id)
        ON CONFLICT DO NOTHING
    RETURNING payment_id, due_at
), stepped AS (
    INSERT INTO payment_steps (payment_id, version, sources, targets, instants, reasons)
    SELECT payment_id, max(version), array_agg(source), array_agg(target), array_agg($25::timestamptz),
           array_agg(reason)
      FROM unnest($27::uuid[], $28::int[], $29::text[], $30::text[], $31::text[])
           AS step (payment_id, version, source, target, reason)
     -- IS TRUE has it look them up in a hash table, where a join would compare each with each.
     WHERE (payment_id IN (SELECT payment_id FROM claimed)) IS TRUE
     GROUP BY payment_id
), in_hand AS (
    INSERT INTO claimed_batch (batch_id, look_at, payment_ids)
    SELECT $34, min(due_at), array_agg(payment_id)
      FROM claimed
     WHERE due_at IS NOT NULL
    HAVING count(*) > 0
)
SELECT payment_id FROM claimed;

-- save_whole --
-- Store the steps that a process has taken together with their events, if its fencing tokens all are the payments' own;
-- else nothing. One statement instead of a transaction of four: the usual case, where nobody was overtaken. Batches all
-- of whose payments end or wait with this go too.
WITH mine AS (
    SELECT payment.payment_id
      FROM transactions AS payment
      JOIN unnest($1::uuid[], $2::bigint[]) AS t (payment_id, fencing_token) USING (payment_id, fencing_token)
     ORDER BY payment.payment_id
       FOR NO KEY UPDATE OF payment
), whole AS (
    SELECT count(*) = cardinality($1::uuid[]) AS is_whole FROM mine
), saved AS (
    UPDATE transactions AS payment
       SET state = t.state, version = t.version, leased_until = t.leased_until, due_at = t.due_at, wake_at = t.due_at,
           risk_level = t.risk_level, needs_otp = t.needs_otp, has_hold = t.has_hold, review_id = t.review_id,
           reason = t.reason, error_code = t.error_code, error_detail = t.error_detail, updated_at = t.updated_at,
           completed_at = t.completed_at, expires_at = t.expires_at
      FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::int[], $5::timestamptz[], $6::timestamptz[], $7::text[],
                  $8::bool[], $9::bool[], $10::uuid[], $11::text[], $12::text[], $13::text[], $14::timestamptz[],
                  $15::timestamptz[], $16::timestamptz[])
           AS t (payment_id, fencing_token, state, version, leased_until, due_at, risk_level, needs_otp, has_hold,
                 review_id, reason, error_code, error_detail, updated_at, completed_at, expires_at), whole
     WHERE payment.payment_id = t.payment_id
       AND payment.fencing_token = t.fencing_token
       AND whole.is_whole
    RETURNING payment.payment_id
), stepped AS (
    INSERT INTO payment_steps (payment_id, version, sources, targets, instants, reasons)
    SELECT payment_id, max(version), array_agg(source), array_agg(target), array_agg(at), array_agg(reason)
      FROM unnest($17::uuid[], $18::int[], $19::text[], $20::text[], $21::timestamptz[], $22::text[])
           AS step (payment_id, version, source, target, at, reason), whole
     WHERE whole.is_whole
     GROUP BY payment_id
), told AS (
    INSERT INTO event_log.batch (types, events, event_count)
    SELECT $23::text[], $24::bytea, $25::int FROM whole WHERE whole.is_whole
), in_hand AS (
    DELETE FROM claimed_batch USING whole WHERE batch_id = ANY($26::uuid[]) AND whole.is_whole
)
SELECT payment_id FROM saved;

-- save --
-- Store the steps that a process has taken, where its fencing token still is the payment's own (see save_whole).
WITH saved AS (
    UPDATE transactions AS payment
       SET state = t.state, version = t.version, leased_until = t.leased_until, due_at = t.due_at, wake_at = t.due_at,
           risk_level = t.risk_level, needs_otp = t.needs_otp, has_hold = t.has_hold, review_id = t.review_id,
           reason = t.reason, error_code = t.error_code, error_detail = t.error_detail, updated_at = t.updated_at,
           completed_at = t.completed_at, expires_at = t.expires_at
      FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::int[], $5::timestamptz[], $6::timestamptz[], $7::text[],
                  $8::bool[], $9::bool[], $10::uuid[], $11::text[], $12::text[], $13::text[], $14::timestamptz[],
                  $15::timestamptz[], $16::timestamptz[])
           AS t (payment_id, fencing_token, state, version, leased_until, due_at, risk_level, needs_otp, has_hold,
                 review_id, reason, error_code, error_detail, updated_at, completed_at, expires_at)
     WHERE payment.payment_id = t.payment_id
       AND payment.fencing_token = t.fencing_token
    RETURNING payment.payment_id
), stepped AS (
    INSERT INTO payment_steps (payment_id, version, sources, targets, instants, reasons)
    SELECT payment_id, max(version), array_agg(source), array_agg(target), array_agg(at), array_agg(reason)
      FROM unnest($17::uuid[], $18::int[], $19::text[], $20::text[], $21::timestamptz[], $22::text[])
           AS step (payment_id, version, source, target, at, reason)
     WHERE (payment_id IN (SELECT payment_id FROM saved)) IS TRUE
     GROUP BY payment_id
)
SELECT payment_id FROM saved;

-- lease --
-- Take over payments that nobody works on. The rows are locked in one order, then checked: of two processes one wins.
WITH free AS (
    SELECT payment_id, state, due_at
      FROM transactions
     WHERE payment_id = ANY($1::uuid[])
       AND due_at IS NOT NULL
       AND state = ANY($4::text[])
       AND (leased_until IS NULL OR leased_until <= $2)
     ORDER BY payment_id
       FOR NO KEY UPDATE
)
UPDATE transactions AS payment
   SET fencing_token = payment.fencing_token + 1, leased_until = $3, due_at = next.due_at, wake_at = next.due_at
  FROM free
       JOIN LATERAL (SELECT CASE WHEN free.state IN ('AWAITING_OTP', 'UNDER_REVIEW', 'SCHEDULED') THEN free.due_at
                                 ELSE $3 END AS due_at) AS next ON true
 WHERE payment.payment_id = free.payment_id
RETURNING payment.*;

-- lease_due --
-- Take over payments whose automatic next step is due: those that waited for it, and those of batches that nobody has
-- finished in time. Several processes share the work without waiting.
WITH waiting AS (
    SELECT payment_id, state, due_at
      FROM transactions
     WHERE wake_at <= $1
       AND (leased_until IS NULL OR leased_until <= $1)
     ORDER BY wake_at
     LIMIT $3
       FOR NO KEY UPDATE SKIP LOCKED
), left_behind AS (
    SELECT payment_id, state, due_at
      FROM transactions
     WHERE payment_id = ANY(ARRAY(SELECT unnest(payment_ids) FROM claimed_batch WHERE look_at <= $1))
       AND wake_at IS NULL
       AND due_at <= $1
       AND (leased_until IS NULL OR leased_until <= $1)
     ORDER BY payment_id
     LIMIT $3
       FOR NO KEY UPDATE SKIP LOCKED
), due AS (
    SELECT payment_id, CASE WHEN state IN ('AWAITING_OTP', 'UNDER_REVIEW', 'SCHEDULED') THEN due_at ELSE $2 END AS due_at
      FROM (SELECT * FROM waiting UNION ALL SELECT * FROM left_behind) AS either
)
UPDATE transactions AS payment
   SET fencing_token = payment.fencing_token + 1, leased_until = $2, due_at = due.due_at, wake_at = due.due_at
  FROM due
 WHERE payment.payment_id = due.payment_id
RETURNING payment.*;

-- forget_batches --
-- Batches whose time is over and whose payments all have ended, or are woken one by one. After lease_due.
DELETE FROM claimed_batch
 WHERE look_at <= $1
   AND NOT EXISTS (SELECT
                     FROM unnest(payment_ids) AS member (payment_id)
                     JOIN transactions AS payment USING (payment_id)
                    WHERE payment.due_at IS NOT NULL AND payment.wake_at IS NULL);

-- return_leases --
-- Give leases back without a step. Who has lost the lease changes nothing.
UPDATE transactions AS payment
   SET leased_until = NULL, due_at = next.due_at, wake_at = next.due_at
  FROM (SELECT held.payment_id, held.fencing_token,
               CASE WHEN held.state IN ('AWAITING_OTP', 'UNDER_REVIEW') THEN held.due_at
                    -- Never before its day, also where only its cancellation has failed.
                    WHEN held.state = 'SCHEDULED' THEN greatest(held.due_at, $3)
                    ELSE $3 END AS due_at
          FROM unnest($1::uuid[], $2::bigint[]) AS t (payment_id, fencing_token)
          JOIN transactions AS held USING (payment_id, fencing_token)
         WHERE held.due_at IS NOT NULL
         ORDER BY held.payment_id
           FOR NO KEY UPDATE OF held) AS next
 WHERE payment.payment_id = next.payment_id;

-- withdraw --
-- Undo claims of payments that nothing was done for.
SELECT payment_id FROM withdraw($1::uuid[]) AS gone (payment_id);

-- find --
-- The payments of these keys: by idempotency key, and by transaction id for those used under another key.
SELECT payment.*
  FROM unnest($1::text[], $2::text[]) AS t (customer_id, idempotency_key)
  JOIN transactions AS payment USING (customer_id, idempotency_key)
UNION
SELECT payment.*
  FROM unnest($1::text[], $3::text[]) AS t (customer_id, transaction_id)
  JOIN transactions AS payment USING (customer_id, transaction_id);

-- by_ids --
SELECT * FROM transactions WHERE payment_id = ANY($1::uuid[]);

-- by_transaction --
SELECT payment.*
  FROM unnest($1::text[], $2::text[]) AS t (customer_id, transaction_id)
  JOIN transactions AS payment USING (customer_id, transaction_id);

-- page_of_customer --
-- A customer's payments, newest first: payment ids sort by the time of their making.
SELECT *
  FROM transactions
 WHERE customer_id = $1
   AND ($2::uuid IS NULL OR payment_id < $2)
   AND ($3::text IS NULL OR state = $3)
 ORDER BY payment_id DESC
 LIMIT $4;

-- page_of_all --
-- Everybody's payments, newest first, for operators.
SELECT *
  FROM transactions
 WHERE ($1::uuid IS NULL OR payment_id < $1)
   AND ($2::text IS NULL OR state = $2)
 ORDER BY payment_id DESC
 LIMIT $3;

-- transitions --
SELECT payment_id, version, source, target, at, reason
  FROM payment_transition
 WHERE payment_id = ANY($1::uuid[])
 ORDER BY payment_id, version;

-- sides --
-- Who paid whom, and what for, by the ids under which an account has its lines: a payment's own, and a return's for the
-- payment that it gives back.
SELECT payment_id AS booked_as, payment_id, transaction_id, customer_id, debtor_account, creditor_account, agent_bic,
       creditor_name_encrypted, remittance_encrypted
  FROM transactions
 WHERE payment_id = ANY($1::uuid[])
UNION ALL
SELECT made.return_id, payment.payment_id, payment.transaction_id, payment.customer_id, payment.debtor_account,
       payment.creditor_account, payment.agent_bic, payment.creditor_name_encrypted, payment.remittance_encrypted
  FROM payment_return AS made
  JOIN transactions AS payment USING (payment_id)
 WHERE made.return_id = ANY($1::uuid[]);

-- forget_old_keys --
-- Idempotency keys are kept 30 days; then the payment stays and its key may be used again.
UPDATE transactions SET idempotency_key = NULL
 WHERE idempotency_key IS NOT NULL AND due_at IS NULL AND received_at < $1;

-- open_by_state --
-- Unfinished payments by state, and since when the oldest of each is in it: those that are woken one by one, and those
-- that a batch says are in hand. A scheduled one counts from its day.
SELECT state, count(*) AS payments,
       min(greatest(updated_at, CASE WHEN state = 'SCHEDULED' THEN execute_at END)) AS since
  FROM (SELECT state, updated_at, execute_at
          FROM transactions
         WHERE wake_at IS NOT NULL
         UNION ALL
        SELECT payment.state, payment.updated_at, payment.execute_at
          FROM claimed_batch
         CROSS JOIN LATERAL unnest(payment_ids) AS member (payment_id)
          JOIN transactions AS payment USING (payment_id)
         WHERE payment.due_at IS NOT NULL AND payment.wake_at IS NULL) AS unfinished
 GROUP BY state;
