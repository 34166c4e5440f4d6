-- lock_customers --
-- Records of one customer are written one after the other; the customer may have no row yet that could be locked.
-- Ordered by key: one order everywhere, or two batches can deadlock.
SELECT pg_advisory_xact_lock(key)
  FROM (SELECT DISTINCT hashtextextended('kyc:' || customer_id, 0) AS key
          FROM unnest($1::text[]) AS t (customer_id)
         ORDER BY key) AS keys;

-- current --
-- Where customers stand; asked for every payment, so one read of narrow rows by key.
SELECT customer_id, version, state, level, verified_at, expires_at
  FROM verification
 WHERE customer_id = ANY($1::text[]);

-- recorded --
-- What earlier commands wrote.
SELECT command_id, customer_id, version, state, level, verified_at, expires_at, reason, recorded_by, recorded_at
  FROM verification_change
 WHERE command_id = ANY($1::uuid[]);

-- changes --
-- Everything that was ever recorded about customers, newest first.
SELECT command_id, customer_id, version, state, level, verified_at, expires_at, reason, recorded_by, recorded_at
  FROM verification_change
 WHERE customer_id = ANY($1::text[])
 ORDER BY customer_id, version DESC;

-- save --
-- Write changes and, from the newest of each customer, where the customer stands. A command id that another
-- customer's record has taken meanwhile inserts nothing: the count tells.
WITH given AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::timestamptz[],
                         $7::timestamptz[], $8::text[], $9::text[], $10::timestamptz[])
           AS t (command_id, customer_id, version, state, level, verified_at, expires_at, reason, recorded_by,
                 recorded_at)
), change AS (
    INSERT INTO verification_change (command_id, customer_id, version, state, level, verified_at, expires_at, reason,
                                     recorded_by, recorded_at)
    SELECT command_id, customer_id, version, state, level, verified_at, expires_at, reason, recorded_by, recorded_at
      FROM given
        ON CONFLICT DO NOTHING
    RETURNING 1
), newest AS (
    INSERT INTO verification AS known (customer_id, version, state, level, verified_at, expires_at)
    SELECT DISTINCT ON (customer_id) customer_id, version, state, level, verified_at, expires_at
      FROM given
     ORDER BY customer_id, version DESC
        ON CONFLICT (customer_id) DO UPDATE
       SET version = excluded.version, state = excluded.state, level = excluded.level,
           verified_at = excluded.verified_at, expires_at = excluded.expires_at
)
SELECT count(*) FROM change;
