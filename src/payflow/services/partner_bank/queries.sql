-- insert_instructions --
-- Store new instructions; a known payment id, or an end-to-end id that the bank knows already, returns no row.
INSERT INTO instruction (payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr,
                         amount_minor, currency, parties_encrypted, fencing_token, status, reason_code,
                         next_attempt_at, created_at, updated_at, answered_at, is_answer_delivered, attempts)
SELECT payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr, amount_minor, currency,
       parties_encrypted, fencing_token, status, reason_code, next_attempt_at, created_at, created_at, answered_at,
       is_answer_delivered, attempts
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
              $9::text[], $10::bytea[], $11::bigint[], $12::text[], $13::text[], $14::timestamptz[],
              $15::timestamptz[], $16::timestamptz[], $17::boolean[], $18::integer[])
       AS t (payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr, amount_minor, currency,
             parties_encrypted, fencing_token, status, reason_code, next_attempt_at, created_at, answered_at,
             is_answer_delivered, attempts)
 ORDER BY payment_id
    ON CONFLICT DO NOTHING
RETURNING payment_id;

-- lock_instructions --
-- Known instructions, locked. Ordered: one order everywhere, or two batches can deadlock.
SELECT payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr, amount_minor, currency,
       parties_encrypted, fencing_token, coalesce(suspense_exit, status) AS status,
       coalesce(exit_reason, reason_code) AS reason_code, is_suspicious, attempts, next_attempt_at, created_at,
       updated_at, answered_at, is_answer_delivered
  FROM instruction
 WHERE payment_id = ANY($1::uuid[])
 ORDER BY payment_id
   FOR NO KEY UPDATE;

-- lock_due --
-- Instructions in these statuses to try again, the oldest first; what another process has in hand is left to it.
SELECT payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr, amount_minor, currency,
       parties_encrypted, fencing_token, coalesce(suspense_exit, status) AS status,
       coalesce(exit_reason, reason_code) AS reason_code, is_suspicious, attempts, next_attempt_at, created_at,
       updated_at, answered_at, is_answer_delivered
  FROM instruction
 WHERE next_attempt_at <= $2
   AND status = ANY($1::text[])
 ORDER BY next_attempt_at
 LIMIT $3
   FOR NO KEY UPDATE SKIP LOCKED;

-- held_in_suspense --
-- Incoming payments whose money is in suspense and waits for its review, after this one; nothing is locked.
SELECT payment_id
  FROM instruction
 WHERE status = 'HELD_IN_SUSPENSE'
   AND suspense_exit IS NULL
   AND suspense_exit IS DISTINCT FROM 'RETURNED'
   AND ($1::uuid IS NULL OR payment_id > $1)
 ORDER BY payment_id
 LIMIT $2;

-- save_instructions --
-- Write what can change. A final status is never left: a row that has one keeps it, whatever is written. What goes back
-- is HELD_IN_SUSPENSE to the release before this one, which would tell the other bank a reason that stands beside it.
UPDATE instruction
   SET fencing_token = t.fencing_token,
       reason_code = CASE WHEN t.status IN ('RETURNING', 'RETURNED') THEN NULL ELSE t.reason_code END,
       exit_reason = CASE WHEN t.status IN ('RETURNING', 'RETURNED') THEN t.reason_code END,
       status = CASE WHEN t.status IN ('RETURNING', 'RETURNED') THEN 'HELD_IN_SUSPENSE' ELSE t.status END,
       suspense_exit = CASE WHEN t.status IN ('RETURNING', 'RETURNED') THEN t.status END,
       is_suspicious = t.is_suspicious, attempts = t.attempts, next_attempt_at = t.next_attempt_at,
       updated_at = t.updated_at, answered_at = t.answered_at, is_answer_delivered = t.is_answer_delivered
  FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::boolean[], $6::integer[], $7::timestamptz[],
              $8::timestamptz[], $9::timestamptz[], $10::boolean[])
       AS t (payment_id, fencing_token, status, reason_code, is_suspicious, attempts, next_attempt_at, updated_at,
             answered_at, is_answer_delivered)
 WHERE instruction.payment_id = t.payment_id
   AND (coalesce(instruction.suspense_exit, instruction.status) = t.status
        OR coalesce(instruction.suspense_exit, instruction.status)
           IN ('UNKNOWN', 'PENDING', 'HELD_IN_SUSPENSE', 'RETURNING'));

-- open_incoming --
-- Incoming payments that are not where they stay, by status, and since when the oldest of each is in it.
SELECT coalesce(suspense_exit, status) AS status, count(*) AS payments, min(updated_at) AS oldest
  FROM instruction
 WHERE status IN ('PENDING', 'HELD_IN_SUSPENSE')
   AND suspense_exit IS DISTINCT FROM 'RETURNED'
 GROUP BY coalesce(suspense_exit, status);

-- find_instructions --
-- Instructions by payment id; nothing is locked.
SELECT payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr, amount_minor, currency,
       parties_encrypted, fencing_token, coalesce(suspense_exit, status) AS status,
       coalesce(exit_reason, reason_code) AS reason_code, is_suspicious, attempts, next_attempt_at, created_at,
       updated_at, answered_at, is_answer_delivered
  FROM instruction
 WHERE payment_id = ANY($1::uuid[]);

-- note_exits --
-- By which ids the money of payments leaves suspense; known ones stay as they are.
INSERT INTO exit_from_suspense (exit_id, payment_id)
SELECT exit_id, payment_id FROM unnest($1::uuid[], $2::uuid[]) AS t (exit_id, payment_id)
    ON CONFLICT (exit_id) DO NOTHING;

-- sides --
-- Who paid whom, and what for, of payments that came in: by their ids, and by those under which they left suspense.
-- IS TRUE: as a plain condition the direction would be looked up in the index that begins with it, in all that came in.
SELECT payment_id AS booked_as, payment_id, agent_bic, end_to_end_id, parties_encrypted
  FROM instruction
 WHERE payment_id = ANY($1::uuid[])
   AND (direction = 'INCOMING') IS TRUE
UNION ALL
SELECT gone.exit_id, instruction.payment_id, instruction.agent_bic, instruction.end_to_end_id,
       instruction.parties_encrypted
  FROM exit_from_suspense AS gone
  JOIN instruction USING (payment_id)
 WHERE gone.exit_id = ANY($1::uuid[]);

-- page_of_instructions --
-- Newest first, after the instruction of the cursor.
SELECT payment_id, direction, end_to_end_id, agent_bic, amount_minor, currency,
       coalesce(suspense_exit, status) AS status, coalesce(exit_reason, reason_code) AS reason_code, created_at,
       updated_at, next_attempt_at
  FROM instruction
 WHERE ($1::text IS NULL OR direction = $1)
   AND ($2::text IS NULL OR coalesce(suspense_exit, status) = $2)
   AND ($3::uuid IS NULL
        OR (created_at, payment_id) < (SELECT created_at, payment_id FROM instruction WHERE payment_id = $3))
 ORDER BY created_at DESC, payment_id DESC
 LIMIT $4;

-- page_of_returns --
-- Returns as instructions are listed, each under its own id: newest first, after the return of the cursor.
SELECT return_id AS payment_id, 'RETURN' AS direction, end_to_end_id, agent_bic, amount_minor, currency, status,
       coalesce(reason_code, return_reason) AS reason_code, created_at, updated_at, next_attempt_at, last_answer,
       last_answer_at, end_requested_by, end_reference, end_expires_at
  FROM incoming_return
 WHERE ($1::text IS NULL OR status = $1)
   AND ($2::uuid IS NULL
        OR (created_at, return_id) < (SELECT created_at, return_id FROM incoming_return WHERE return_id = $2))
 ORDER BY created_at DESC, return_id DESC
 LIMIT $3;

-- insert_return --
-- Store a return. One whose payment has another that was not refused is against one_return_that_is_not_refused.
INSERT INTO incoming_return (return_id, payment_id, number, message_id, agent_bic, end_to_end_id, uetr, amount_minor,
                             currency, return_reason, status, attempts, next_attempt_at, created_at, updated_at,
                             needs_approval, end_reference, end_requested_by, end_requested_at, end_expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20);

-- lock_due_returns --
-- Returns in this status to try again, the oldest first; what another process has in hand is left to it.
SELECT return_id, payment_id, number, message_id, agent_bic, end_to_end_id, uetr, amount_minor, currency, return_reason,
       status, reason_code, attempts, next_attempt_at, created_at, updated_at, sent_at, answered_at, booked_at,
       proof, ended_by, needs_approval, end_reference, end_requested_by, end_requested_at, end_expires_at,
       never_received, last_answer, last_answer_at
  FROM incoming_return
 WHERE next_attempt_at <= $2
   AND status = $1
 ORDER BY next_attempt_at
 LIMIT $3
   FOR NO KEY UPDATE SKIP LOCKED;

-- lock_returns --
-- Known returns, locked. Ordered: one order everywhere, or two batches can deadlock.
SELECT return_id, payment_id, number, message_id, agent_bic, end_to_end_id, uetr, amount_minor, currency, return_reason,
       status, reason_code, attempts, next_attempt_at, created_at, updated_at, sent_at, answered_at, booked_at,
       proof, ended_by, needs_approval, end_reference, end_requested_by, end_requested_at, end_expires_at,
       never_received, last_answer, last_answer_at
  FROM incoming_return
 WHERE return_id = ANY($1::uuid[])
 ORDER BY return_id
   FOR NO KEY UPDATE;

-- lock_returns_not_refused --
-- The one return of each payment that was not refused, locked as by lock_returns.
SELECT return_id, payment_id, number, message_id, agent_bic, end_to_end_id, uetr, amount_minor, currency, return_reason,
       status, reason_code, attempts, next_attempt_at, created_at, updated_at, sent_at, answered_at, booked_at,
       proof, ended_by, needs_approval, end_reference, end_requested_by, end_requested_at, end_expires_at,
       never_received, last_answer, last_answer_at
  FROM incoming_return
 WHERE payment_id = ANY($1::uuid[])
   AND status <> 'REJECTED'
 ORDER BY return_id
   FOR NO KEY UPDATE;

-- find_returns --
-- Returns by their ids; nothing is locked.
SELECT return_id, payment_id, number, message_id, agent_bic, end_to_end_id, uetr, amount_minor, currency, return_reason,
       status, reason_code, attempts, next_attempt_at, created_at, updated_at, sent_at, answered_at, booked_at,
       proof, ended_by, needs_approval, end_reference, end_requested_by, end_requested_at, end_expires_at,
       never_received, last_answer, last_answer_at
  FROM incoming_return
 WHERE return_id = ANY($1::uuid[]);

-- save_returns --
-- Write what can change; the bank's word is never left.
UPDATE incoming_return
   SET status = t.status, reason_code = t.reason_code, attempts = t.attempts, next_attempt_at = t.next_attempt_at,
       updated_at = t.updated_at, sent_at = t.sent_at, answered_at = t.answered_at, booked_at = t.booked_at,
       proof = t.proof, ended_by = t.ended_by, needs_approval = t.needs_approval, end_reference = t.end_reference,
       end_requested_by = t.end_requested_by, end_requested_at = t.end_requested_at, end_expires_at = t.end_expires_at,
       never_received = t.never_received, last_answer = t.last_answer, last_answer_at = t.last_answer_at
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::timestamptz[], $6::timestamptz[],
              $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::text[], $11::text[], $12::boolean[],
              $13::text[], $14::text[], $15::timestamptz[], $16::timestamptz[], $17::integer[], $18::text[],
              $19::timestamptz[])
       AS t (return_id, status, reason_code, attempts, next_attempt_at, updated_at, sent_at, answered_at, booked_at,
             proof, ended_by, needs_approval, end_reference, end_requested_by, end_requested_at, end_expires_at,
             never_received, last_answer, last_answer_at)
 WHERE incoming_return.return_id = t.return_id
   AND (incoming_return.status = t.status OR incoming_return.status = 'UNKNOWN');
