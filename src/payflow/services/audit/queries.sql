-- lock_end --
-- The chain's end, locked: whoever appends holds it until the commit, so that the chain never forks.
SELECT sequence, hash FROM chain_end FOR UPDATE;

-- end --
-- The chain's end as it was written down beside the table.
SELECT sequence, hash FROM chain_end;

-- known --
-- Which of these events have a row already.
SELECT event_id FROM audit_logs WHERE event_id = ANY($1::uuid[]);

-- append --
-- Write the rows of a batch in order and make the last of them the chain's end. The hashes come from the domain; a
-- sequence or an event that is there already fails the batch.
WITH appended AS (
    INSERT INTO audit_logs (sequence, event_id, type, source, subject, version, occurred_at, recorded_at, data,
                            traceparent, previous_hash, hash)
    SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                         $7::timestamptz[], $8::timestamptz[], $9::json[], $10::text[], $11::bytea[], $12::bytea[])
)
UPDATE chain_end SET sequence = $13, hash = $14;

-- records_after --
-- The next rows of the chain in order.
SELECT sequence, event_id, type, source, subject, version, occurred_at, recorded_at, data, traceparent,
       previous_hash, hash
  FROM audit_logs
 WHERE sequence > $1
 ORDER BY sequence
 LIMIT $2;

-- search --
-- One page of rows. The store puts its own texts into the braces, never a caller's: a filter that is not asked for is
-- left out rather than switched off, so that each combination has a plan with the right index.
SELECT sequence, event_id, type, source, subject, version, occurred_at, recorded_at, data, traceparent,
       previous_hash, hash
  FROM audit_logs
 WHERE true {filters}
 ORDER BY sequence {direction}
 LIMIT $1;

-- events_set_aside --
-- How many events of the log are set aside, over all consumers.
SELECT event_log.count_dead_letters();

-- receipt --
-- The newest signed head that the database knows of.
SELECT number, digest FROM head_receipt;

-- save_receipt --
-- Remember the newest signed head; never an older one.
UPDATE head_receipt SET number = $1, digest = $2 WHERE number < $1;
