-- A payment that nothing holds up used to write three rows of payment_transition, each with an entry in an index. Now the
-- steps that one statement stores are one row, and the first step (RECEIVED) is the payment's own row.

CREATE TABLE payment_steps (
    payment_id uuid          NOT NULL,
    -- The last of them; the steps before it count down from there.
    version    integer       NOT NULL,
    sources    text[]        NOT NULL,
    targets    text[]        NOT NULL,
    instants   timestamptz[] NOT NULL,
    reasons    text[]        NOT NULL,
    PRIMARY KEY (payment_id, version),
    CONSTRAINT steps_are_whole CHECK (cardinality(targets) > 0 AND version > cardinality(targets)
        AND cardinality(sources) = cardinality(targets) AND cardinality(instants) = cardinality(targets)
        AND cardinality(reasons) = cardinality(targets))
);
INSERT INTO payment_steps (payment_id, version, sources, targets, instants, reasons)
SELECT payment_id, max(version), array_agg(source ORDER BY version), array_agg(target ORDER BY version),
       array_agg(at ORDER BY version), array_agg(reason ORDER BY version)
  FROM payment_transition
 WHERE version > 1
 GROUP BY payment_id;

DROP TABLE payment_transition;
CREATE VIEW payment_transition AS
SELECT payment_id, 1 AS version, NULL::text AS source, 'RECEIVED' AS target, received_at AS at, NULL::text AS reason
  FROM transactions
UNION ALL
SELECT payment_id, version - cardinality(targets) + place, sources[place], targets[place], instants[place],
       reasons[place]
  FROM payment_steps
 CROSS JOIN LATERAL generate_subscripts(targets, 1) AS place;

CREATE OR REPLACE FUNCTION withdraw(payment_ids uuid[]) RETURNS SETOF uuid
    LANGUAGE sql SECURITY DEFINER SET search_path = confirm, pg_temp AS
$$
    -- At its first version a payment has no row of steps.
    DELETE FROM transactions
     WHERE payment_id = ANY(payment_ids) AND state = 'RECEIVED' AND version = 1 AND fencing_token = 1
    RETURNING payment_id
$$;

-- A page's payments are all ended a moment after they were claimed, by one statement: their second versions need as much
-- room as the first. With less, a quarter of the ends went to another page and into every index.
ALTER TABLE transactions SET (fillfactor = 50);

GRANT SELECT, INSERT ON payment_steps TO payflow_confirm;
GRANT SELECT ON payment_transition TO payflow_confirm;
