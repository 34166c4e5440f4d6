-- open_cases --
-- One case per payment. A payment that has one returns no row; if another transaction is just making it, this waits for
-- its end. Given in the order of payment ids: one order everywhere, or two batches can deadlock.
INSERT INTO review_case (review_id, payment_id, customer_id, matches, names_encrypted, list_version, opened_at)
SELECT review_id, payment_id, customer_id, matches::jsonb, names, list_version, opened_at
  FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::timestamptz[])
       AS t (review_id, payment_id, customer_id, matches, names, list_version, opened_at)
    ON CONFLICT (payment_id) DO NOTHING
RETURNING payment_id, review_id;

-- reviews_of_payments --
-- The cases that payments have.
SELECT payment_id, review_id FROM review_case WHERE payment_id = ANY($1::uuid[]);

-- decisions_of_payments --
-- How the cases of payments stand.
SELECT payment_id, state, decided_at FROM review_case WHERE payment_id = ANY($1::uuid[]);

-- insert_proofs --
-- Names found clear for the first time on a list version. Given in order, for the same reason.
INSERT INTO cleared_name (name_digest, list_version, first_cleared_at)
SELECT name_digest, $2, $3 FROM unnest($1::bytea[]) AS t (name_digest)
    ON CONFLICT (name_digest, list_version) DO NOTHING;

-- cases --
-- Cases by id.
SELECT review_id, payment_id, customer_id, state, matches, names_encrypted, list_version, opened_at,
       decided_at, decided_by, comment_encrypted, delivery_tries, delivered_at
  FROM review_case
 WHERE review_id = ANY($1::uuid[]);

-- lock_cases --
-- Cases that officers are about to decide, locked. Ordered: one order everywhere, or two batches can deadlock.
SELECT review_id, payment_id, customer_id, state, matches, names_encrypted, list_version, opened_at,
       decided_at, decided_by, comment_encrypted, delivery_tries, delivered_at
  FROM review_case
 WHERE review_id = ANY($1::uuid[])
 ORDER BY review_id
   FOR NO KEY UPDATE;

-- newest_cases --
-- A page, newest first: review ids rise with time.
SELECT review_id, payment_id, customer_id, state, matches, names_encrypted, list_version, opened_at,
       decided_at, decided_by, comment_encrypted, delivery_tries, delivered_at
  FROM review_case
 WHERE ($1::text IS NULL OR state = $1)
   AND ($2::uuid IS NULL OR review_id < $2)
 ORDER BY review_id DESC
 LIMIT $3;

-- open_reviews --
-- How many cases are open, and since when the oldest is: read every few seconds by each process.
SELECT count(*) AS cases, min(opened_at) AS oldest FROM review_case WHERE state = 'OPEN';

-- save_decisions --
-- Decisions about cases that were locked open.
UPDATE review_case
   SET state = t.state, decided_at = t.decided_at, decided_by = t.decided_by, comment_encrypted = t.comment,
       deliver_after = $6
  FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::bytea[])
       AS t (review_id, state, decided_at, decided_by, comment)
 WHERE review_case.review_id = t.review_id
   AND review_case.state = 'OPEN';

-- undelivered --
-- Decisions of which confirm must be told now, the longest due first.
SELECT review_id, payment_id, state = 'CLEARED' AS is_cleared, decided_by, delivery_tries AS tries
  FROM review_case
 WHERE delivered_at IS NULL
   AND state <> 'OPEN'
   AND deliver_after <= $1
 ORDER BY deliver_after
 LIMIT $2;

-- save_deliveries --
-- What tries to tell confirm came to. Delivered stays delivered, whichever of two processes was later.
WITH locked AS (
    SELECT review_id FROM review_case WHERE review_id = ANY($1::uuid[]) ORDER BY review_id FOR NO KEY UPDATE
)
UPDATE review_case
   SET delivery_tries = t.tries, deliver_after = t.deliver_after, delivered_at = t.delivered_at
  FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::timestamptz[])
       AS t (review_id, tries, deliver_after, delivered_at)
  JOIN locked USING (review_id)
 WHERE review_case.review_id = t.review_id
   AND review_case.delivered_at IS NULL;
