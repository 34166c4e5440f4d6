-- insert_instructions --
-- Store new instructions; a known payment id, or an end-to-end id that the bank knows already, returns no row.
INSERT INTO instruction (payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr,
                         amount_minor, currency, parties_encrypted, fencing_token, status, reason_code,
                         next_attempt_at, created_at, updated_at, answered_at, is_answer_delivered)
SELECT payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr, amount_minor, currency,
       parties_encrypted, fencing_token, status, reason_code, next_attempt_at, created_at, created_at, answered_at,
       is_answer_delivered
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
              $9::text[], $10::bytea[], $11::bigint[], $12::text[], $13::text[], $14::timestamptz[],
              $15::timestamptz[], $16::timestamptz[], $17::boolean[])
       AS t (payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr, amount_minor, currency,
             parties_encrypted, fencing_token, status, reason_code, next_attempt_at, created_at, answered_at,
             is_answer_delivered)
 ORDER BY payment_id
    ON CONFLICT DO NOTHING
RETURNING payment_id;

-- lock_instructions --
-- Known instructions, locked. Ordered: one order everywhere, or two batches can deadlock.
SELECT payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr, amount_minor, currency,
       parties_encrypted, fencing_token, status, reason_code, is_suspicious, attempts, next_attempt_at, created_at,
       updated_at, answered_at, is_answer_delivered
  FROM instruction
 WHERE payment_id = ANY($1::uuid[])
 ORDER BY payment_id
   FOR NO KEY UPDATE;

-- lock_due --
-- Instructions to try again, the oldest first; what another process has in hand is left to it.
SELECT payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr, amount_minor, currency,
       parties_encrypted, fencing_token, status, reason_code, is_suspicious, attempts, next_attempt_at, created_at,
       updated_at, answered_at, is_answer_delivered
  FROM instruction
 WHERE next_attempt_at <= $2
   AND status = ANY($1::text[])
 ORDER BY next_attempt_at
 LIMIT $3
   FOR NO KEY UPDATE SKIP LOCKED;

-- save_instructions --
-- Write what can change. A final status is never left: a row that has one keeps it, whatever is written.
UPDATE instruction
   SET fencing_token = t.fencing_token, status = t.status, reason_code = t.reason_code,
       is_suspicious = t.is_suspicious, attempts = t.attempts, next_attempt_at = t.next_attempt_at,
       updated_at = t.updated_at, answered_at = t.answered_at, is_answer_delivered = t.is_answer_delivered
  FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::boolean[], $6::integer[], $7::timestamptz[],
              $8::timestamptz[], $9::timestamptz[], $10::boolean[])
       AS t (payment_id, fencing_token, status, reason_code, is_suspicious, attempts, next_attempt_at, updated_at,
             answered_at, is_answer_delivered)
 WHERE instruction.payment_id = t.payment_id
   AND (instruction.status = t.status OR instruction.status IN ('UNKNOWN', 'PENDING'));

-- find_instructions --
-- Instructions by payment id; nothing is locked.
SELECT payment_id, direction, agent_bic, end_to_end_id, message_id, instruction_id, uetr, amount_minor, currency,
       parties_encrypted, fencing_token, status, reason_code, is_suspicious, attempts, next_attempt_at, created_at,
       updated_at, answered_at, is_answer_delivered
  FROM instruction
 WHERE payment_id = ANY($1::uuid[]);

-- page_of_instructions --
-- Newest first, after the instruction of the cursor.
SELECT payment_id, direction, end_to_end_id, agent_bic, amount_minor, currency, status, reason_code, created_at,
       updated_at
  FROM instruction
 WHERE ($1::text IS NULL OR direction = $1)
   AND ($2::text IS NULL OR status = $2)
   AND ($3::uuid IS NULL
        OR (created_at, payment_id) < (SELECT created_at, payment_id FROM instruction WHERE payment_id = $3))
 ORDER BY created_at DESC, payment_id DESC
 LIMIT $4;
