-- Assessments with the facts they were decided on, and the rule sets they were made with.

CREATE TABLE rule_set (
    version      integer     PRIMARY KEY,
    document     jsonb       NOT NULL,
    activated_at timestamptz NOT NULL,
    CONSTRAINT versions_begin_at_one CHECK (version > 0)
);

CREATE TABLE assessment (
    payment_id         uuid        PRIMARY KEY,
    customer_id        text        NOT NULL,
    assessed_at        timestamptz NOT NULL,
    amount_minor       bigint      NOT NULL,
    currency           text        NOT NULL,
    debtor             text        NOT NULL,
    creditor           text        NOT NULL,
    level              text        NOT NULL,
    points             integer     NOT NULL,
    sanctions_points   integer     NOT NULL,
    needs_otp          boolean     NOT NULL,
    is_possible_match  boolean     NOT NULL,
    review_id          uuid,
    rules_hit          text[]      NOT NULL,
    rules_version      integer     NOT NULL,
    list_version       text        NOT NULL,
    is_kyc_verified    boolean     NOT NULL,
    payments_in_window integer     NOT NULL,
    is_counted         boolean     NOT NULL DEFAULT true,
    CONSTRAINT an_assessment_level_is_known CHECK (level IN ('LOW', 'MEDIUM', 'HIGH')),
    CONSTRAINT sanctions_points_are_part_of_points CHECK (sanctions_points BETWEEN 0 AND points),
    CONSTRAINT the_payment_itself_counts CHECK (payments_in_window > 0)
);
CREATE INDEX counted_assessments ON assessment (customer_id, assessed_at) WHERE is_counted;

-- Locks customers until the end of the transaction and tells how many counted payments each has since an instant.
-- The count is a statement of its own after the locks: its snapshot sees what others committed while this one waited.
-- Keys are sorted: one order everywhere, or two batches can deadlock.
-- It looks at no more than `at_most` payments, and always through the index: a plan made while the table was small
-- would read the whole table for ever after, and a bitmap would gather all of a customer's payments before the first.
CREATE FUNCTION count_recent(customers text[], since timestamptz, at_most integer)
    RETURNS TABLE (counted_customer_id text, payments integer)
    LANGUAGE plpgsql VOLATILE ROWS 50
    SET search_path = risk, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS
$$
BEGIN
    PERFORM pg_advisory_xact_lock(key)
       FROM (SELECT DISTINCT hashtextextended('risk:' || customer_id, 0) AS key
               FROM unnest(customers) AS t (customer_id)
              ORDER BY key) AS keys;
    RETURN QUERY
    SELECT given.customer_id, recent.payments
      FROM unnest(customers) AS given (customer_id)
     CROSS JOIN LATERAL (
           SELECT count(*)::integer AS payments
             FROM (SELECT 1
                     FROM assessment
                    WHERE assessment.customer_id = given.customer_id
                      AND assessment.assessed_at > since
                      AND assessment.is_counted
                    LIMIT at_most) AS bounded
           ) AS recent;
END
$$;

-- Stores a batch's assessments if each customer has as many counted payments as was expected when they were made; else
-- stores nothing and returns the counts that differ. One call instead of a transaction of four for the usual case, in
-- which the caller knows the count from its own last payments. A payment that was assessed before fails the whole call.
CREATE FUNCTION save_if_counted(
    customers text[], expected integer[], since timestamptz, at_most integer,
    payment_ids uuid[], customer_ids text[], amounts_minor bigint[], currencies text[], debtors text[],
    creditors text[], levels text[], all_points integer[], all_sanctions_points integer[], all_needs_otp boolean[],
    possible_matches boolean[], review_ids uuid[], all_rules_hit text[], list_versions text[], kyc_verified boolean[],
    counts_in_window integer[], version_of_rules integer, at timestamptz)
    RETURNS TABLE (counted_customer_id text, payments integer)
    LANGUAGE plpgsql VOLATILE ROWS 1
    SET search_path = risk, pg_temp AS
$$
DECLARE
    stored integer;
BEGIN
    RETURN QUERY
    SELECT counted.counted_customer_id, counted.payments
      FROM count_recent(customers, since, at_most) AS counted
      JOIN unnest(customers, expected) AS t (customer_id, payments) ON t.customer_id = counted.counted_customer_id
     WHERE counted.payments <> t.payments;
    IF FOUND THEN
        RETURN;
    END IF;
    -- The rules that hit travel as one text for each payment, since arrays of arrays must all be equally long.
    INSERT INTO assessment (payment_id, customer_id, amount_minor, currency, debtor, creditor, level, points,
                            sanctions_points, needs_otp, is_possible_match, review_id, rules_hit, list_version,
                            is_kyc_verified, payments_in_window, rules_version, assessed_at)
    SELECT t.payment_id, t.customer_id, t.amount_minor, t.currency, t.debtor, t.creditor, t.level, t.points,
           t.sanctions_points, t.needs_otp, t.is_possible_match, t.review_id, string_to_array(t.rules_hit, ','),
           t.list_version, t.is_kyc_verified, t.payments_in_window, version_of_rules, at
      FROM unnest(payment_ids, customer_ids, amounts_minor, currencies, debtors, creditors, levels, all_points,
                  all_sanctions_points, all_needs_otp, possible_matches, review_ids, all_rules_hit, list_versions,
                  kyc_verified, counts_in_window)
           AS t (payment_id, customer_id, amount_minor, currency, debtor, creditor, level, points,
                 sanctions_points, needs_otp, is_possible_match, review_id, rules_hit, list_version,
                 is_kyc_verified, payments_in_window)
        ON CONFLICT (payment_id) DO NOTHING;
    GET DIAGNOSTICS stored = ROW_COUNT;
    IF stored <> cardinality(payment_ids) THEN
        RAISE EXCEPTION 'a payment of the batch was assessed before' USING ERRCODE = 'serialization_failure';
    END IF;
END
$$;

-- What was decided stays; only the outcome of the payment is added to it.
REVOKE EXECUTE ON FUNCTION count_recent(text[], timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION count_recent(text[], timestamptz, integer) TO payflow_risk;
REVOKE EXECUTE ON FUNCTION save_if_counted FROM PUBLIC;
GRANT EXECUTE ON FUNCTION save_if_counted TO payflow_risk;
GRANT SELECT, INSERT ON assessment, rule_set TO payflow_risk;
GRANT UPDATE (is_counted) ON assessment TO payflow_risk;
GRANT payflow_event_consumer TO payflow_risk;
