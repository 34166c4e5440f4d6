-- lock_customers --
-- One issuer at a time for each customer, or two could both see the last free place under the rate limit. The sorted
-- subquery gives one order everywhere; a customer without a challenge has no row that could be locked instead.
SELECT pg_advisory_xact_lock(key)
  FROM (SELECT DISTINCT hashtextextended('otp customer ' || customer_id, 0) AS key
          FROM unnest($1::text[]) AS t (customer_id)
         ORDER BY key) AS ordered;

-- open_challenges --
-- The payments' open challenges, locked against a code that is tried at this moment.
SELECT challenge_id, payment_id, customer_id, key_id, nonce, binding, state, tries, tries_max, issued_at, expires_at,
       sent_at, ended_at, end_reason, attempt_id
  FROM challenge
 WHERE payment_id = ANY($1::uuid[]) AND state = 'OPEN'
 ORDER BY challenge_id
   FOR UPDATE;

-- challenges_of --
-- All challenges of the payments, locked: codes tried at the same moment wait here and see the tries before them.
SELECT challenge_id, payment_id, customer_id, key_id, nonce, binding, state, tries, tries_max, issued_at, expires_at,
       sent_at, ended_at, end_reason, attempt_id
  FROM challenge
 WHERE payment_id = ANY($1::uuid[])
 ORDER BY challenge_id
   FOR UPDATE;

-- issues_since --
-- What the rate limits count.
SELECT customer_id, payment_id, issued_at
  FROM challenge
 WHERE customer_id = ANY($1::text[]) AND issued_at > $2;

-- insert_challenges --
-- New challenges; the index one_open_challenge_per_payment refuses what only a bug could issue.
INSERT INTO challenge (challenge_id, payment_id, customer_id, key_id, nonce, binding, state, tries_max,
                       issued_at, expires_at, ended_at, end_reason)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::text[],
                     $8::smallint[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::text[]);

-- update_challenges --
-- Tries and ends of locked challenges. A final state is never left, whatever comes.
UPDATE challenge
   SET state = t.state, tries = t.tries, ended_at = t.ended_at, end_reason = t.end_reason, attempt_id = t.attempt_id
  FROM unnest($1::uuid[], $2::text[], $3::smallint[], $4::timestamptz[], $5::text[], $6::uuid[])
       AS t (challenge_id, state, tries, ended_at, end_reason, attempt_id)
 WHERE challenge.challenge_id = t.challenge_id AND challenge.state = 'OPEN';

-- mark_sent --
-- The codes were handed over.
UPDATE challenge
   SET sent_at = $2
  FROM (SELECT challenge_id FROM challenge WHERE challenge_id = ANY($1::uuid[]) ORDER BY challenge_id FOR UPDATE)
       AS locked
 WHERE challenge.challenge_id = locked.challenge_id AND challenge.sent_at IS NULL;

-- delete_before --
-- Forget challenges that nobody asks about any more.
WITH deleted AS (DELETE FROM challenge WHERE issued_at < $1 RETURNING 1)
SELECT count(*) FROM deleted;
