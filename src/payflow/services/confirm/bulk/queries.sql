-- find --
SELECT * FROM bulk_order WHERE customer_id = $1 AND idempotency_key = $2;

-- lock_customer --
-- One customer's orders are opened and accepted one after another, or two at once could pass a limit together.
SELECT pg_advisory_xact_lock(hashtextextended('bulk_order:' || $1::text, 0));

-- open --
-- Store a new order, unless its customer has one under its key, or too many that run or whose file is not whole.
INSERT INTO bulk_order (bulk_id, customer_id, idempotency_key, state, version, fencing_token, due_at, columns, items,
       stored_to, started_to, ran_to, traceparent, received_at, updated_at, counted_at, expires_at)
SELECT $1, $2, $3, 'RECEIVING', 1, 0, $4, $5::text[], 0, 0, 0, 0, $6, $7, $7, $7, $4
 WHERE (SELECT count(*) FILTER (WHERE state = 'PROCESSING') < $8 AND count(*) FILTER (WHERE state = 'RECEIVING') < $9
          FROM bulk_order
         WHERE customer_id = $2 AND due_at IS NOT NULL)
    ON CONFLICT DO NOTHING
RETURNING *;

-- get --
SELECT bulk.*
  FROM unnest($1::text[], $2::uuid[]) AS t (customer_id, bulk_id)
  JOIN bulk_order AS bulk USING (bulk_id)
 WHERE bulk.customer_id = t.customer_id;

-- page --
-- A customer's orders, newest first: bulk ids sort by the time of their making.
SELECT *
  FROM bulk_order
 WHERE customer_id = $1
   AND ($2::uuid IS NULL OR bulk_id < $2)
   AND ($3::text IS NULL OR state = $3)
 ORDER BY bulk_id DESC
 LIMIT $4;

-- append --
-- Store the lines that the order is to get next, if it still takes lines and there is room; else nothing.
WITH mine AS (
    SELECT bulk_id
      FROM bulk_order
     WHERE bulk_id = $1 AND customer_id = $2 AND state = 'RECEIVING' AND stored_to = $3 - 1
       AND items + cardinality($5::int[]) <= $13
       FOR NO KEY UPDATE
), stored AS (
    INSERT INTO bulk_chunk (bulk_id, first_line, last_line, lines, transaction_ids, fingerprints, payments_encrypted,
           error_codes, error_details, counts)
    SELECT bulk_id, $3, $4, $5, $6::text[], $7::bytea[], $8::bytea, $9::text[], $10::text[], $11::jsonb FROM mine
)
UPDATE bulk_order AS bulk
   SET stored_to = $4, items = bulk.items + cardinality($5::int[]), updated_at = $12
  FROM mine
 WHERE bulk.bulk_id = mine.bulk_id
RETURNING bulk.bulk_id;

-- fingerprints --
SELECT line.number, line.fingerprint
  FROM bulk_chunk AS chunk
 CROSS JOIN LATERAL unnest(chunk.lines, chunk.fingerprints) AS line (number, fingerprint)
 WHERE chunk.bulk_id = $1 AND chunk.last_line >= $2 AND chunk.first_line <= $3
   AND line.number BETWEEN $2 AND $3;

-- accept --
-- The file is whole: the order may begin, unless too many of its customer's run. Who comes too late gets no row.
UPDATE bulk_order
   SET state = 'PROCESSING', version = version + 1, accepted_at = $4, updated_at = $4, due_at = $4, expires_at = $5
 WHERE bulk_id = $1 AND customer_id = $2 AND state = 'RECEIVING' AND stored_to = $3
   AND (SELECT count(*) FROM bulk_order WHERE customer_id = $2 AND state = 'PROCESSING' AND due_at IS NOT NULL) < $6
RETURNING *;

-- repeated_transactions --
-- The lines whose transaction_id an earlier line of the file has, with that line; lines that are no payment have none.
SELECT first_line, number, earliest
  FROM (SELECT chunk.first_line, line.number,
               min(line.number) OVER (PARTITION BY line.transaction_id) AS earliest
          FROM bulk_chunk AS chunk
         CROSS JOIN LATERAL unnest(chunk.lines, chunk.transaction_ids, chunk.error_codes)
                         AS line (number, transaction_id, error_code)
         WHERE chunk.bulk_id = $1 AND line.transaction_id IS NOT NULL AND line.error_code IS NULL) AS numbered
 WHERE number <> earliest;

-- chunks_by_first_line --
SELECT first_line, lines, transaction_ids, error_codes, error_details, payment_ids
  FROM bulk_chunk
 WHERE bulk_id = $1 AND first_line = ANY($2::int[]);

-- refuse_lines --
UPDATE bulk_chunk SET error_codes = $3, error_details = $4, counts = $5 WHERE bulk_id = $1 AND first_line = $2;

-- cancel --
-- Nothing more is begun. Where a process has the lease, it goes on when that process gives the lease back.
UPDATE bulk_order
   SET state = 'CANCELLING', version = version + 1, updated_at = $3::timestamptz,
       due_at = CASE WHEN leased_until > $3::timestamptz THEN due_at ELSE $3::timestamptz END
 WHERE bulk_id = $1 AND customer_id = $2 AND (state = 'RECEIVING' OR state = 'PROCESSING' AND NOT $4::boolean)
RETURNING *;

-- take_turn --
-- The order that has waited longest, with its next chunk. The chunk counts as begun from here on, unless the order is
-- cancelled or out of time.
WITH turn AS (
    SELECT bulk_id, ran_to, state = 'PROCESSING' AND expires_at > $1 AS may_begin
      FROM bulk_order
     WHERE due_at <= $1 AND (leased_until IS NULL OR leased_until <= $1)
     ORDER BY due_at
     LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED
), next AS (
    SELECT chunk.*
      FROM turn
     CROSS JOIN LATERAL (
        SELECT first_line, last_line, lines, transaction_ids, fingerprints, payments_encrypted, error_codes,
               error_details
          FROM bulk_chunk
         WHERE bulk_chunk.bulk_id = turn.bulk_id AND bulk_chunk.first_line > turn.ran_to
         ORDER BY first_line
         LIMIT 1) AS chunk
), taken AS (
    UPDATE bulk_order AS bulk
       SET fencing_token = bulk.fencing_token + 1, leased_until = $2, due_at = $2,
           started_to = CASE WHEN turn.may_begin THEN coalesce(next.last_line, bulk.started_to)
                             ELSE bulk.started_to END
      FROM turn
      LEFT JOIN next ON true
     WHERE bulk.bulk_id = turn.bulk_id
    RETURNING bulk.*
)
SELECT taken.*, next.*
  FROM taken
  LEFT JOIN next ON true;

-- finish_chunk --
-- The results of a chunk, where the lease still is ours; with the last one the order is completed.
WITH mine AS (
    UPDATE bulk_order
       SET ran_to = $4::int, leased_until = NULL, updated_at = $5::timestamptz,
           due_at = CASE WHEN $4::int = stored_to THEN NULL ELSE $5::timestamptz END,
           state = CASE WHEN $4::int = stored_to THEN 'COMPLETED' ELSE state END,
           version = CASE WHEN $4::int = stored_to THEN version + 1 ELSE version END,
           ended_at = CASE WHEN $4::int = stored_to THEN $5::timestamptz END,
           expires_at = CASE WHEN $4::int = stored_to THEN NULL ELSE expires_at END
     WHERE bulk_id = $1 AND fencing_token = $2
    RETURNING *
), written AS (
    UPDATE bulk_chunk AS chunk
       SET payments_encrypted = NULL, payment_ids = $6::uuid[], error_codes = $7::text[], error_details = $8::text[],
           counts = $9::jsonb, open_ids = $10::uuid[]
      FROM mine
     WHERE chunk.bulk_id = mine.bulk_id AND chunk.first_line = $3
)
SELECT * FROM mine;

-- end_order --
-- The order ends, if the lease still is ours and nobody has changed its state meanwhile.
UPDATE bulk_order
   SET state = $4, version = version + 1, ran_to = stored_to, started_to = stored_to, leased_until = NULL,
       due_at = NULL, expires_at = NULL, updated_at = $5, ended_at = $5
 WHERE bulk_id = $1 AND fencing_token = $2 AND state = $3
RETURNING *;

-- end_lines --
-- The lines that were never begun get their result: the end of the order.
UPDATE bulk_chunk
   SET payments_encrypted = NULL,
       payment_ids = array_fill(NULL::uuid, ARRAY[cardinality(lines)]),
       error_details = ARRAY(SELECT CASE WHEN code IS NULL THEN $4::text ELSE detail END
                               FROM unnest(error_codes, error_details) WITH ORDINALITY AS line (code, detail, place)
                              ORDER BY place),
       error_codes = ARRAY(SELECT coalesce(code, $3::text)
                             FROM unnest(error_codes) WITH ORDINALITY AS line (code, place) ORDER BY place),
       counts = counts || jsonb_build_object($5::text,
                   cardinality(lines) - (SELECT coalesce(sum(value::int), 0) FROM jsonb_each_text(counts)))
 WHERE bulk_id = $1 AND first_line > $2;

-- rest --
UPDATE bulk_order SET leased_until = NULL, due_at = $3
 WHERE bulk_id = $1 AND fencing_token = $2 AND due_at IS NOT NULL;

-- tallies --
SELECT chunk.bulk_id, part.key AS status, sum(part.value::int) AS lines
  FROM bulk_chunk AS chunk
 CROSS JOIN LATERAL jsonb_each_text(chunk.counts) AS part
 WHERE chunk.bulk_id = ANY($1::uuid[])
 GROUP BY chunk.bulk_id, part.key;

-- paid --
-- What an order's lines have paid, by currency, in minor units: those that were counted as ended, as in the tallies.
SELECT payment.currency, sum(payment.amount_minor)::bigint AS paid_minor
  FROM bulk_chunk AS chunk
 CROSS JOIN LATERAL unnest(chunk.payment_ids) AS made (payment_id)
  JOIN transactions AS payment ON payment.payment_id = made.payment_id
 WHERE chunk.bulk_id = $1
   AND payment.state = 'COMPLETED'
   AND (made.payment_id = ANY(chunk.open_ids)) IS NOT TRUE
 GROUP BY payment.currency;

-- begin_recount --
UPDATE bulk_order SET counted_at = $2 WHERE bulk_id = $1 AND counted_at <= $3 RETURNING bulk_id;

-- open_payments --
SELECT chunk.first_line, chunk.counts, payment.payment_id, payment.state
  FROM bulk_chunk AS chunk
 CROSS JOIN LATERAL unnest(chunk.open_ids) AS open (payment_id)
  JOIN transactions AS payment ON payment.payment_id = open.payment_id
 WHERE chunk.bulk_id = $1;

-- write_counts --
UPDATE bulk_chunk SET counts = $3, open_ids = $4 WHERE bulk_id = $1 AND first_line = $2;

-- chunks --
SELECT first_line, lines, transaction_ids, error_codes, error_details, payment_ids
  FROM bulk_chunk
 WHERE bulk_id = $1 AND last_line > $2
 ORDER BY first_line
 LIMIT $3;

-- open_by_state --
-- Unfinished orders by state, and since when the one that rests longest has had no step.
SELECT state, count(*) AS orders, min(updated_at) AS since
  FROM bulk_order
 WHERE due_at IS NOT NULL
 GROUP BY state;

-- forget_old_keys --
-- As those of single payments: kept 30 days; then the order stays and its key may be used again.
UPDATE bulk_order SET idempotency_key = NULL
 WHERE idempotency_key IS NOT NULL AND due_at IS NULL AND received_at < $1;
