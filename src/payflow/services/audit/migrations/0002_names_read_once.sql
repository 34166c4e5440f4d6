-- Which payment and which customer a row names besides its subject used to be read out of its JSON four times for each
-- row: by two indexes, in their expressions and their conditions. Now it is read once, when the row is written. The columns are generated, so that
-- nobody can make them say anything else than the hashed data does.
DROP INDEX audit_logs_that_name_a_payment, audit_logs_that_name_a_customer;
ALTER TABLE audit_logs
    ADD COLUMN names_payment text GENERATED ALWAYS AS (nullif(data ->> 'payment_id', subject)) STORED,
    ADD COLUMN names_customer text GENERATED ALWAYS AS (nullif(data ->> 'customer_id', subject)) STORED;
CREATE INDEX audit_logs_that_name_a_payment ON audit_logs (names_payment, sequence) WHERE names_payment IS NOT NULL;
CREATE INDEX audit_logs_that_name_a_customer ON audit_logs (names_customer, sequence) WHERE names_customer IS NOT NULL;
