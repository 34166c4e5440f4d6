-- A payment of a file names its bulk order, also after its idempotency key was forgotten.

-- Who waits for the table has everybody else wait behind: rather try the migration again.
SET LOCAL lock_timeout = '5s';

ALTER TABLE transactions ADD COLUMN bulk_id uuid;
