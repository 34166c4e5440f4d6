-- outside a transaction
-- What came in and is not where it stays, found without looking at all that ever did. Nobody who pays waits for it.
DROP INDEX CONCURRENTLY IF EXISTS incoming_under_way;
CREATE INDEX CONCURRENTLY incoming_under_way ON instruction (status, payment_id)
 WHERE status IN ('PENDING', 'HELD_IN_SUSPENSE') AND suspense_exit IS DISTINCT FROM 'RETURNED';
