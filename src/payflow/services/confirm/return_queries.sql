-- find --
-- The returns that were asked for under these keys.
SELECT made.*
  FROM unnest($1::text[], $2::text[]) AS t (requested_by, idempotency_key)
  JOIN payment_return AS made USING (requested_by, idempotency_key);

-- totals --
SELECT payment_id, taken_minor, returned_minor FROM return_total WHERE payment_id = ANY($1::uuid[]);

-- open_total --
-- A payment's first return finds no total yet.
INSERT INTO return_total (payment_id, amount_minor) VALUES ($1, $2) ON CONFLICT (payment_id) DO NOTHING;

-- take --
-- Take a return's amount of its payment, if the total still is what the return was decided on. Returns at the same moment
-- wait for this row; the constraint never_more_than_the_payment refuses what only a bug could take.
UPDATE return_total SET taken_minor = taken_minor + $3 WHERE payment_id = $1 AND taken_minor = $2 RETURNING payment_id;

-- insert --
-- A new return with its first step; nothing when its key was used before.
WITH stored AS (
    INSERT INTO payment_return (return_id, payment_id, transaction_id, idempotency_key, fingerprint, amount_minor,
        currency, debtor_customer_id, debtor_account, debtor_account_id, creditor_customer_id, creditor_account,
        creditor_account_id, reason_code, note_encrypted, needs_approval, requested_by, state, version, fencing_token,
        leased_until, due_at, traceparent, requested_at, updated_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
            $24, $25)
        ON CONFLICT (requested_by, idempotency_key) DO NOTHING
    RETURNING return_id
), stepped AS (
    INSERT INTO return_step (return_id, version, source, target, at, reason, taken_by)
    SELECT return_id, $19, NULL, $18, $24, $14, $17 FROM stored
)
SELECT return_id FROM stored;

-- save --
-- Store the steps that a process has taken, where its fencing token still is the return's own. A return that completes
-- counts as returned; one that is refused gives back what it had taken of its payment.
WITH saved AS (
    UPDATE payment_return AS made
       SET state = $3, version = $4, leased_until = $5, due_at = $6, decided_by = $7, review_id = $8, error_code = $9,
           error_detail = $10, updated_at = $11, completed_at = $12, expires_at = $13
     WHERE return_id = $1
       AND fencing_token = $2
       AND due_at IS NOT NULL
    RETURNING return_id, payment_id, amount_minor
), stepped AS (
    INSERT INTO return_step (return_id, version, source, target, at, reason, taken_by)
    SELECT saved.return_id, step.version, step.source, step.target, step.at, step.reason, step.taken_by
      FROM unnest($14::int[], $15::text[], $16::text[], $17::timestamptz[], $18::text[], $19::text[])
           AS step (version, source, target, at, reason, taken_by), saved
), counted AS (
    UPDATE return_total AS total
       SET taken_minor = total.taken_minor - CASE WHEN $3 = ANY ($20::text[]) THEN saved.amount_minor ELSE 0 END,
           returned_minor = total.returned_minor + CASE WHEN $3 = 'COMPLETED' THEN saved.amount_minor ELSE 0 END
      FROM saved
     WHERE total.payment_id = saved.payment_id
       AND $6::timestamptz IS NULL
)
SELECT return_id FROM saved;

-- lease --
-- Take over a return that nobody works on.
WITH free AS (
    SELECT return_id
      FROM payment_return
     WHERE return_id = $1
       AND due_at IS NOT NULL
       AND (leased_until IS NULL OR leased_until <= $2)
       FOR NO KEY UPDATE
)
UPDATE payment_return AS made
   SET fencing_token = made.fencing_token + 1, leased_until = $3,
       due_at = CASE WHEN made.state = 'APPROVED' THEN $3 ELSE made.due_at END
  FROM free
 WHERE made.return_id = free.return_id
RETURNING made.*;

-- lease_due --
-- Take over returns whose automatic next step is due; several processes share the work without waiting.
WITH due AS (
    SELECT return_id
      FROM payment_return
     WHERE due_at <= $1
       AND (leased_until IS NULL OR leased_until <= $1)
     ORDER BY due_at
     LIMIT $3
       FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE payment_return AS made
   SET fencing_token = made.fencing_token + 1, leased_until = $2,
       due_at = CASE WHEN made.state = 'APPROVED' THEN $2 ELSE made.due_at END
  FROM due
 WHERE made.return_id = due.return_id
RETURNING made.*;

-- give_lease_back --
-- Who has lost the lease changes nothing. A return that waits for a person keeps its deadline.
UPDATE payment_return
   SET leased_until = NULL, due_at = CASE WHEN state = 'APPROVED' THEN $3 ELSE due_at END
 WHERE return_id = $1
   AND fencing_token = $2
   AND due_at IS NOT NULL;

-- by_ids --
SELECT * FROM payment_return WHERE return_id = ANY($1::uuid[]);

-- page_of_payment --
SELECT *
  FROM payment_return
 WHERE payment_id = $1
   AND ($2::uuid IS NULL OR return_id < $2)
   AND ($3::text IS NULL OR state = $3)
 ORDER BY return_id DESC
 LIMIT $4;

-- page_of_all --
SELECT *
  FROM payment_return
 WHERE ($1::uuid IS NULL OR return_id < $1)
   AND ($2::text IS NULL OR state = $2)
 ORDER BY return_id DESC
 LIMIT $3;

-- steps --
SELECT version, source, target, at, reason, taken_by FROM return_step WHERE return_id = $1 ORDER BY version;

-- open_by_state --
-- Unfinished returns by state, and since when the oldest of each is in it.
SELECT state, count(*) AS returns, min(updated_at) AS since
  FROM payment_return
 WHERE due_at IS NOT NULL
 GROUP BY state;
