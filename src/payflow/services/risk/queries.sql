-- find --
-- Stored assessments, so that a repeat gets the first answer.
SELECT payment_id, customer_id, assessed_at, amount_minor, currency, debtor, creditor, level, points, sanctions_points,
       needs_otp, is_possible_match, review_id, rules_hit, rules_version, list_version, is_kyc_verified,
       payments_in_window
  FROM assessment
 WHERE payment_id = ANY($1::uuid[]);

-- count_recent --
-- How many payments of each customer count, with the customers locked (see the function in migrations).
SELECT counted_customer_id, payments FROM count_recent($1::text[], $2, $3);

-- save --
-- Store a batch's assessments; one for a payment that has been assessed meanwhile inserts nothing, and the row count
-- tells. The rules that hit travel as one text for each payment, since arrays of arrays must all be equally long.
INSERT INTO assessment (payment_id, customer_id, amount_minor, currency, debtor, creditor, level, points,
                        sanctions_points, needs_otp, is_possible_match, review_id, rules_hit, list_version,
                        is_kyc_verified, payments_in_window, rules_version, assessed_at)
SELECT payment_id, customer_id, amount_minor, currency, debtor, creditor, level, points,
       sanctions_points, needs_otp, is_possible_match, review_id, string_to_array(rules_hit, ','), list_version,
       is_kyc_verified, payments_in_window, $17, $18
  FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::integer[],
              $9::integer[], $10::boolean[], $11::boolean[], $12::uuid[], $13::text[], $14::text[],
              $15::boolean[], $16::integer[])
       AS t (payment_id, customer_id, amount_minor, currency, debtor, creditor, level, points,
             sanctions_points, needs_otp, is_possible_match, review_id, rules_hit, list_version,
             is_kyc_verified, payments_in_window)
    ON CONFLICT (payment_id) DO NOTHING;

-- save_if_counted --
-- Store a batch's assessments if the customers' counts are the expected ones, or return those that differ (see the
-- function in migrations).
SELECT counted_customer_id, payments
  FROM save_if_counted($1::text[], $2::integer[], $3, $4, $5::uuid[], $6::text[], $7::bigint[], $8::text[], $9::text[],
                       $10::text[], $11::text[], $12::integer[], $13::integer[], $14::boolean[], $15::boolean[],
                       $16::uuid[], $17::text[], $18::text[], $19::boolean[], $20::integer[], $21, $22);

-- stop_counting --
-- Take refused payments out of the count; the assessment itself stays as it was decided.
UPDATE assessment SET is_counted = false WHERE payment_id = ANY($1::uuid[]) AND is_counted;

-- activate_rules --
-- Store a rule set if it is newer than all that are stored.
INSERT INTO rule_set (version, document, activated_at)
SELECT $1, $2, $3
 WHERE $1 > coalesce((SELECT max(version) FROM rule_set), 0)
    ON CONFLICT (version) DO NOTHING;

-- newest_rules --
SELECT document FROM rule_set ORDER BY version DESC LIMIT 1;
