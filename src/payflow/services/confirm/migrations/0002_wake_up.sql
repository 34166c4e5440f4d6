-- A payment is usually made a moment after it was claimed. To find those that were left behind, every one of them used
-- to enter the index of payments that are due, and its end had to leave it: an index on a column that the end changes
-- costs an entry in every index of the table. Now a batch of new payments is one row of claimed_batch, and only a
-- payment that waits, or was taken over, is in the index: the end of all others changes no indexed column (HOT).

ALTER TABLE transactions ADD COLUMN wake_at timestamptz;
UPDATE transactions SET wake_at = due_at WHERE due_at IS NOT NULL;
DROP INDEX payments_that_are_due;
CREATE INDEX payments_to_wake ON transactions (wake_at) WHERE wake_at IS NOT NULL;
ALTER TABLE transactions ADD CONSTRAINT a_payment_is_woken_when_it_is_due CHECK (
    wake_at IS NULL OR (due_at IS NOT NULL AND wake_at = due_at));

-- New payments that a process works on. The row goes when all of them have ended or wait; a row that has stayed until
-- `look_at` says where to look for payments that were left behind.
CREATE TABLE claimed_batch (
    batch_id    uuid        PRIMARY KEY,
    look_at     timestamptz NOT NULL,
    payment_ids uuid[]      NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

GRANT SELECT, INSERT, DELETE ON claimed_batch TO payflow_confirm;
