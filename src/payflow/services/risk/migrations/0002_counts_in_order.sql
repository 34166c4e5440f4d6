-- The counts of a batch's customers come in the order of the customers, so that they stand beside what was expected of
-- them without a join: over a batch of a hundred that one compared each with each, ten thousand times.

-- As before (0001), but in the order of `customers`.
CREATE OR REPLACE FUNCTION count_recent(customers text[], since timestamptz, at_most integer)
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
      FROM unnest(customers) WITH ORDINALITY AS given (customer_id, place)
     CROSS JOIN LATERAL (
           SELECT count(*)::integer AS payments
             FROM (SELECT 1
                     FROM assessment
                    WHERE assessment.customer_id = given.customer_id
                      AND assessment.assessed_at > since
                      AND assessment.is_counted
                    LIMIT at_most) AS bounded
           ) AS recent
     ORDER BY given.place;
END
$$;

-- As before (0001), but for how the counts meet the expected ones.
CREATE OR REPLACE FUNCTION save_if_counted(
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
      FROM ROWS FROM (count_recent(customers, since, at_most), unnest(expected))
           AS counted (counted_customer_id, payments, expected)
     WHERE counted.payments IS DISTINCT FROM counted.expected;
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
