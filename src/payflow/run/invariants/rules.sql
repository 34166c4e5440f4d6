-- Each query answers one row for each thing that it looked at: `what` names it, `is_broken` says whether the rule is
-- broken there, `is_waiting` that it is not true yet and may become so by itself (work under way, an event not read yet).
-- $1 in every query: the instant until which something may be under way. Named in catalog.py.

-- entries_balance --
SELECT 'entry ' || entry_id::text AS what,
       sum(amount_minor) <> 0 OR count(*) < 2 OR count(DISTINCT currency) > 1 AS is_broken, false AS is_waiting
  FROM account.posting JOIN account.accounts USING (account_id)
 WHERE $1::timestamptz IS NOT NULL
 GROUP BY entry_id

-- currencies_sum_to_zero --
SELECT 'all accounts in ' || currency AS what, sum(posted_minor) <> 0 AS is_broken, false AS is_waiting
  FROM account.account_balance
 WHERE $1::timestamptz IS NOT NULL
 GROUP BY currency

-- balances_are_the_sum_of_postings --
SELECT 'account ' || balance.account_id::text AS what,
       balance.posted_minor <> coalesce(total.amount_minor, 0) OR balance.sequence <> coalesce(total.count, 0)
       OR balance.sequence <> coalesce(total.last, 0) AS is_broken, false AS is_waiting
  FROM account.account_balance AS balance
  LEFT JOIN (SELECT account_id, sum(amount_minor) AS amount_minor, count(*) AS count, max(sequence) AS last
               FROM account.posting GROUP BY account_id) AS total USING (account_id)
 WHERE $1::timestamptz IS NOT NULL

-- running_balances_follow --
SELECT 'posting ' || sequence::text || ' of account ' || account_id::text AS what,
       balance_minor <> amount_minor + lag(balance_minor, 1, 0::bigint) OVER in_order AS is_broken, false AS is_waiting
  FROM account.posting
 WHERE $1::timestamptz IS NOT NULL
WINDOW in_order AS (PARTITION BY account_id ORDER BY sequence)

-- held_is_the_sum_of_reservations --
SELECT 'account ' || balance.account_id::text AS what,
       balance.held_minor <> coalesce(total.amount_minor, 0) AS is_broken, false AS is_waiting
  FROM account.account_balance AS balance
  LEFT JOIN (SELECT account_id, sum(amount_minor) AS amount_minor
               FROM account.fund_reservations WHERE state = 'HELD' GROUP BY account_id) AS total USING (account_id)
 WHERE $1::timestamptz IS NOT NULL

-- postings_and_entries_belong_together --
SELECT 'entry ' || coalesce(entry.entry_id, posting.entry_id)::text AS what,
       entry.entry_id IS NULL OR posting.entry_id IS NULL
       OR posting.payment_id IS NOT NULL AND posting.payment_id IS DISTINCT FROM entry.payment_id AS is_broken,
       false AS is_waiting
  FROM account.journal_entry AS entry
  FULL JOIN (SELECT DISTINCT entry_id, payment_id FROM account.posting) AS posting USING (entry_id)
 WHERE $1::timestamptz IS NOT NULL

-- nobody_is_overdrawn --
SELECT 'account ' || account_id::text AS what, posted_minor - held_minor < 0 AS is_broken, false AS is_waiting
  FROM account.account_balance
 WHERE NOT is_internal AND $1::timestamptz IS NOT NULL

-- no_account_was_ever_overdrawn --
SELECT 'posting ' || posting.sequence::text || ' of account ' || account_id::text AS what,
       balance_minor < 0 AND amount_minor < 0 AS is_broken, false AS is_waiting
  FROM account.posting JOIN account.account_balance USING (account_id)
 WHERE NOT is_internal AND $1::timestamptz IS NOT NULL

-- no_account_is_ahead_of_the_clock --
-- What is booked on an account that is ahead gets an instant that has not come: the clock was set back.
SELECT 'account ' || account_id::text || ', ahead until ' || booked_at::text AS what,
       booked_at > clock_timestamp() + interval '5 seconds' AS is_broken, false AS is_waiting
  FROM account.account_balance
 WHERE booked_at IS NOT NULL AND $1::timestamptz IS NOT NULL

-- completed_payments_are_booked_once --
SELECT 'payment ' || payment.payment_id::text AS what,
       count(DISTINCT posting.entry_id) <> 1
       OR count(*) FILTER (WHERE posting.account_id = payment.debtor_account_id
                             AND posting.amount_minor = -payment.amount_minor) <> 1
       OR count(*) FILTER (WHERE posting.amount_minor = payment.amount_minor
                             AND (posting.account_id = payment.creditor_account_id
                                  OR payment.creditor_account_id IS NULL AND balance.is_internal)) <> 1 AS is_broken,
       false AS is_waiting
  FROM confirm.transactions AS payment
  LEFT JOIN account.journal_entry AS entry USING (payment_id)
  LEFT JOIN account.posting AS posting USING (entry_id)
  LEFT JOIN account.account_balance AS balance USING (account_id)
 WHERE payment.state = 'COMPLETED' AND $1::timestamptz IS NOT NULL
 GROUP BY payment.payment_id

-- bookings_belong_to_completed_payments --
SELECT 'entry ' || entry.entry_id::text || ' of payment ' || entry.payment_id::text AS what,
       payment.state IS NULL OR payment.state IN ('REJECTED', 'CANCELLED', 'EXPIRED')
       OR payment.state <> 'COMPLETED' AND payment.updated_at < $1 AS is_broken,
       payment.state NOT IN ('COMPLETED', 'REJECTED', 'CANCELLED', 'EXPIRED') AS is_waiting
  FROM account.journal_entry AS entry
  LEFT JOIN confirm.transactions AS payment USING (payment_id)
 WHERE entry.kind IN ('transfer', 'capture')

-- held_funds_belong_to_unfinished_payments --
SELECT 'hold of payment ' || hold.payment_id::text AS what,
       payment.state IS NULL OR payment.due_at IS NULL OR hold.amount_minor <> payment.amount_minor AS is_broken,
       payment.state IN ('RECEIVED', 'APPROVED') AS is_waiting
  FROM account.fund_reservations AS hold
  LEFT JOIN confirm.transactions AS payment USING (payment_id)
 WHERE hold.state = 'HELD' AND $1::timestamptz IS NOT NULL

-- waiting_payments_hold_their_funds --
SELECT 'payment ' || payment.payment_id::text || ' (' || payment.state || ')' AS what,
       hold.payment_id IS NULL AS is_broken, false AS is_waiting
  FROM confirm.transactions AS payment
  LEFT JOIN account.fund_reservations AS hold
       ON hold.payment_id = payment.payment_id AND hold.state = 'HELD'
 WHERE payment.state = 'UNDER_REVIEW' AND payment.due_at > now() AND $1::timestamptz IS NOT NULL
   -- Ordered for later and reviewed before its day: nothing is held until then.
   AND (payment.execute_at IS NULL OR payment.updated_at >= payment.execute_at)

-- submitted_payments_hold_their_funds --
-- All of them, and without expiry, until the bank has spoken: then the hold is captured, or released on its no, and the
-- payment ends right behind it.
SELECT 'payment ' || payment.payment_id::text AS what,
       CASE hold.state WHEN 'HELD' THEN hold.expires_at IS NOT NULL OR hold.amount_minor <> payment.amount_minor
                       WHEN 'CAPTURED' THEN payment.updated_at < $1 AND instruction.status IS DISTINCT FROM 'ACCEPTED'
                       WHEN 'RELEASED' THEN payment.updated_at < $1 AND instruction.status IS DISTINCT FROM 'REJECTED'
                       ELSE true END AS is_broken,
       hold.state <> 'HELD' AS is_waiting
  FROM confirm.transactions AS payment
  LEFT JOIN account.fund_reservations AS hold USING (payment_id)
  LEFT JOIN partner_bank.instruction AS instruction
       ON instruction.payment_id = payment.payment_id AND instruction.direction = 'OUTGOING'
 WHERE payment.state = 'SUBMITTED'

-- transitions_have_no_gaps --
SELECT 'payment ' || payment.payment_id::text AS what,
       count(step.version) <> payment.version OR min(step.version) <> 1 OR max(step.version) <> payment.version
       OR (array_agg(step.target ORDER BY step.version DESC))[1] <> payment.state
       OR (array_agg(step.source ORDER BY step.version))[1] IS NOT NULL AS is_broken, false AS is_waiting
  FROM confirm.transactions AS payment
  LEFT JOIN confirm.payment_transition AS step USING (payment_id)
 WHERE $1::timestamptz IS NOT NULL
 GROUP BY payment.payment_id

-- transitions_follow_one_another --
SELECT 'step ' || version::text || ' of payment ' || payment_id::text AS what,
       source IS DISTINCT FROM lag(target) OVER (PARTITION BY payment_id ORDER BY version) AS is_broken,
       false AS is_waiting
  FROM confirm.payment_transition
 WHERE $1::timestamptz IS NOT NULL

-- transitions_are_legal --
SELECT DISTINCT coalesce(step.source, 'nothing') || ' -> ' || step.target AS what,
       legal.target IS NULL AS is_broken, false AS is_waiting
  FROM confirm.payment_transition AS step
  LEFT JOIN unnest($2::text[], $3::text[]) AS legal (source, target)
       ON legal.source = coalesce(step.source, '') AND legal.target = step.target
 WHERE $1::timestamptz IS NOT NULL

-- nothing_is_left_behind --
SELECT 'payment ' || payment_id::text || ' (' || state || ')' AS what,
       due_at < $1 AS is_broken, due_at < now() AS is_waiting
  FROM confirm.transactions
 WHERE due_at IS NOT NULL
UNION ALL
SELECT 'bulk order ' || bulk_id::text || ' (' || state || ')' AS what,
       due_at < $1 AS is_broken, due_at < now() AS is_waiting
  FROM confirm.bulk_order
 WHERE due_at IS NOT NULL

-- bulk_orders_have_ended_when_every_line_has_a_result --
SELECT 'bulk order ' || bulk.bulk_id::text AS what,
       found.lines <> bulk.items
       OR bulk.items > 0 AND (bulk.due_at IS NULL) <> (found.with_result = bulk.items) AS is_broken, false AS is_waiting
  FROM confirm.bulk_order AS bulk
 CROSS JOIN LATERAL (
    SELECT count(line.number) AS lines,
           count(*) FILTER (WHERE chunk.payment_ids IS NOT NULL
                              AND (line.payment_id IS NOT NULL OR line.error_code IS NOT NULL)) AS with_result
      FROM confirm.bulk_chunk AS chunk
     CROSS JOIN LATERAL unnest(chunk.lines, chunk.payment_ids, chunk.error_codes)
                        AS line (number, payment_id, error_code)
     WHERE chunk.bulk_id = bulk.bulk_id) AS found
 WHERE $1::timestamptz IS NOT NULL

-- bulk_lines_became_payments_of_their_own --
SELECT 'line ' || line.number::text || ' of bulk order ' || bulk.bulk_id::text AS what,
       payment.payment_id IS NULL OR payment.customer_id <> bulk.customer_id
       OR payment.transaction_id <> line.transaction_id
       OR payment.idempotency_key <> 'bulk:' || bulk.bulk_id::text || ':' || line.number::text
       -- None where the customer has sent the line singly before its turn.
       OR coalesce(payment.bulk_id <> bulk.bulk_id, false) AS is_broken,
       false AS is_waiting
  FROM confirm.bulk_order AS bulk
  JOIN confirm.bulk_chunk AS chunk USING (bulk_id)
 CROSS JOIN LATERAL unnest(chunk.lines, chunk.payment_ids, chunk.transaction_ids)
                    AS line (number, payment_id, transaction_id)
  LEFT JOIN confirm.transactions AS payment ON payment.payment_id = line.payment_id
 WHERE line.payment_id IS NOT NULL AND $1::timestamptz IS NOT NULL

-- payments_of_files_are_lines_of_them --
-- The message of a file's end speaks for them: one that is no line of it would be told to nobody.
SELECT 'payment ' || payment.payment_id::text || ' of bulk order ' || payment.bulk_id::text AS what,
       bulk.bulk_id IS NULL OR bulk.customer_id <> payment.customer_id
       OR bulk.due_at IS NULL AND line.bulk_id IS DISTINCT FROM payment.bulk_id AS is_broken,
       bulk.due_at IS NOT NULL AND line.bulk_id IS NULL AS is_waiting
  FROM confirm.transactions AS payment
  LEFT JOIN confirm.bulk_order AS bulk ON bulk.bulk_id = payment.bulk_id
  LEFT JOIN (SELECT chunk.bulk_id, made.payment_id
               FROM confirm.bulk_chunk AS chunk
              CROSS JOIN LATERAL unnest(chunk.payment_ids) AS made (payment_id)) AS line
         ON line.payment_id = payment.payment_id
 WHERE payment.bulk_id IS NOT NULL AND $1::timestamptz IS NOT NULL

-- every_unfinished_payment_is_found --
SELECT 'payment ' || payment.payment_id::text || ' (' || payment.state || ')' AS what,
       payment.wake_at IS NULL AND NOT EXISTS (
           SELECT FROM confirm.claimed_batch WHERE payment.payment_id = ANY(payment_ids)) AS is_broken,
       false AS is_waiting
  FROM confirm.transactions AS payment
 WHERE payment.due_at IS NOT NULL AND $1::timestamptz IS NOT NULL

-- returns_are_within_their_payment --
SELECT 'payment ' || coalesce(total.payment_id, made.payment_id)::text AS what,
       total.payment_id IS NULL OR payment.payment_id IS NULL OR payment.state <> 'COMPLETED'
       OR total.amount_minor <> payment.amount_minor OR total.taken_minor > payment.amount_minor
       OR total.taken_minor <> coalesce(made.taken, 0) OR total.returned_minor <> coalesce(made.returned, 0) AS is_broken,
       false AS is_waiting
  FROM confirm.return_total AS total
  FULL JOIN (SELECT payment_id,
                    sum(amount_minor) FILTER (WHERE state NOT IN ('REJECTED', 'DECLINED', 'EXPIRED')) AS taken,
                    sum(amount_minor) FILTER (WHERE state = 'COMPLETED') AS returned
               FROM confirm.payment_return GROUP BY payment_id) AS made USING (payment_id)
  LEFT JOIN confirm.transactions AS payment ON payment.payment_id = coalesce(total.payment_id, made.payment_id)
 WHERE $1::timestamptz IS NOT NULL

-- completed_returns_are_booked --
-- From the original's creditor to its debtor, in one entry of the kind return.
SELECT 'return ' || made.return_id::text AS what,
       count(DISTINCT posting.entry_id) <> 1 OR NOT coalesce(bool_and(entry.kind = 'return'), false) OR count(*) <> 2
       OR count(*) FILTER (WHERE posting.account_id = original.creditor_account_id
                             AND posting.amount_minor = -made.amount_minor) <> 1
       OR count(*) FILTER (WHERE posting.account_id = original.debtor_account_id
                             AND posting.amount_minor = made.amount_minor) <> 1 AS is_broken,
       false AS is_waiting
  FROM confirm.payment_return AS made
  LEFT JOIN confirm.transactions AS original USING (payment_id)
  LEFT JOIN account.journal_entry AS entry ON entry.payment_id = made.return_id
  LEFT JOIN account.posting AS posting USING (entry_id)
 WHERE made.state = 'COMPLETED' AND $1::timestamptz IS NOT NULL
 GROUP BY made.return_id

-- return_entries_belong_to_completed_returns --
SELECT 'entry ' || entry.entry_id::text || ' of return ' || entry.payment_id::text AS what,
       made.state IS NULL OR made.state IN ('REJECTED', 'DECLINED', 'EXPIRED')
       OR made.state <> 'COMPLETED' AND entry.booked_at < $1 AS is_broken,
       made.state IN ('APPROVED', 'UNDER_REVIEW', 'AWAITING_APPROVAL') AS is_waiting
  FROM account.journal_entry AS entry
  LEFT JOIN confirm.payment_return AS made ON made.return_id = entry.payment_id
 WHERE entry.kind = 'return'

-- returns_above_the_limit_had_four_eyes --
SELECT 'return ' || return_id::text AS what,
       decided_by = requested_by OR decided_by IS NULL AND state NOT IN ('AWAITING_APPROVAL', 'EXPIRED') AS is_broken,
       false AS is_waiting
  FROM confirm.payment_return
 WHERE needs_approval AND $1::timestamptz IS NOT NULL

-- booked_returns_were_assessed --
-- And a possible sanctions match was cleared by a person.
SELECT 'return ' || made.return_id::text AS what,
       assessment.payment_id IS NULL OR assessment.amount_minor <> made.amount_minor
       OR assessment.currency <> made.currency OR assessment.customer_id <> made.debtor_customer_id
       OR assessment.debtor <> made.debtor_account OR assessment.creditor <> made.creditor_account
       OR assessment.is_possible_match
          AND NOT EXISTS (SELECT FROM ofac.review_case
                           WHERE review_case.payment_id = made.return_id AND review_case.state = 'CLEARED'
                             AND review_case.decided_by IS NOT NULL) AS is_broken,
       false AS is_waiting
  FROM account.journal_entry AS entry
  JOIN confirm.payment_return AS made ON made.return_id = entry.payment_id
  LEFT JOIN risk.assessment AS assessment ON assessment.payment_id = made.return_id
 WHERE entry.kind = 'return' AND $1::timestamptz IS NOT NULL

-- return_steps_are_whole --
SELECT 'return ' || made.return_id::text AS what,
       count(step.version) <> made.version OR max(step.version) IS DISTINCT FROM made.version
       OR (array_agg(step.target ORDER BY step.version DESC))[1] IS DISTINCT FROM made.state
       OR bool_or(legal.target IS NULL) AS is_broken,
       false AS is_waiting
  FROM confirm.payment_return AS made
  LEFT JOIN confirm.return_step AS step USING (return_id)
  LEFT JOIN unnest($2::text[], $3::text[]) AS legal (source, target)
       ON legal.source = coalesce(step.source, '') AND legal.target = step.target
 WHERE $1::timestamptz IS NOT NULL
 GROUP BY made.return_id

-- no_return_is_left_behind --
SELECT 'return ' || return_id::text || ' (' || state || ')' AS what,
       due_at < $1 AS is_broken, due_at < now() AS is_waiting
  FROM confirm.payment_return
 WHERE due_at IS NOT NULL

-- no_release_after_submission_without_a_word --
SELECT 'payment ' || hold.payment_id::text AS what,
       instruction.status <> 'REJECTED' AS is_broken, false AS is_waiting
  FROM account.fund_reservations AS hold
  JOIN partner_bank.instruction AS instruction
       ON instruction.payment_id = hold.payment_id AND instruction.direction = 'OUTGOING'
 WHERE hold.state = 'RELEASED' AND $1::timestamptz IS NOT NULL

-- completed_inter_bank_payments_were_accepted --
SELECT 'payment ' || payment.payment_id::text AS what,
       instruction.status IS DISTINCT FROM 'ACCEPTED' OR instruction.amount_minor <> payment.amount_minor AS is_broken,
       false AS is_waiting
  FROM confirm.transactions AS payment
  LEFT JOIN partner_bank.instruction AS instruction
       ON instruction.payment_id = payment.payment_id AND instruction.direction = 'OUTGOING'
 WHERE payment.state = 'COMPLETED' AND payment.creditor_account_id IS NULL AND $1::timestamptz IS NOT NULL

-- accepted_instructions_are_completed --
SELECT 'payment ' || instruction.payment_id::text AS what,
       payment.state IS NULL OR payment.state IN ('REJECTED', 'CANCELLED', 'EXPIRED')
       OR payment.state <> 'COMPLETED' AND instruction.updated_at < $1 AS is_broken,
       payment.state <> 'COMPLETED' AS is_waiting
  FROM partner_bank.instruction AS instruction
  LEFT JOIN confirm.transactions AS payment USING (payment_id)
 WHERE instruction.direction = 'OUTGOING' AND instruction.status = 'ACCEPTED'

-- incoming_money_is_credited_once --
SELECT 'incoming payment ' || instruction.payment_id::text AS what,
       count(entry.entry_id) <> 1 AS is_broken, false AS is_waiting
  FROM partner_bank.instruction AS instruction
  LEFT JOIN account.journal_entry AS entry ON entry.payment_id = instruction.payment_id AND entry.kind = 'incoming'
 WHERE instruction.direction = 'INCOMING'
   AND instruction.status IN ('CREDITED', 'HELD_IN_SUSPENSE')
   AND $1::timestamptz IS NOT NULL
 GROUP BY instruction.payment_id

-- incoming_entries_are_of_what_a_bank_sent --
-- Whose account was credited is encrypted in the instruction: that it is a customer's is what can be seen here, and, as
-- far as the audit trail has it, that its last figures are those that were told. What leaves
-- suspense is booked under an id of its own: see suspense_exit_id.
SELECT 'entry ' || entry.entry_id::text || ' of payment ' || entry.payment_id::text AS what,
       sent.payment_id IS NULL OR found.postings <> 2
       OR found.amount_minor IS DISTINCT FROM sent.amount_minor
       OR found.debited IS DISTINCT FROM
          CASE WHEN sent.is_exit THEN 'SUSPENSE/' || sent.currency
               ELSE 'NOSTRO/' || sent.agent_bic || '/' || sent.currency END
       OR CASE WHEN entry.kind = 'incoming_return' THEN found.credited <> 'NOSTRO/' || sent.agent_bic || '/' || sent.currency
               WHEN sent.is_suspicious AND NOT sent.is_exit THEN found.credited <> 'SUSPENSE/' || sent.currency
               ELSE NOT found.is_customers OR found.currency <> sent.currency
                    OR '…' || right(found.credited, CASE WHEN length(found.credited) > 4 THEN 4 ELSE 2 END) <> told.account
               END IS TRUE
       OR sent.status <> ALL (state.ended) AND (sent.status <> state.before OR entry.booked_at < $1) AS is_broken,
       sent.status = state.before AS is_waiting
  FROM account.journal_entry AS entry
  LEFT JOIN (SELECT payment_id, payment_id AS booked_as, false AS is_exit, is_suspicious, agent_bic, amount_minor,
                    currency, coalesce(suspense_exit, status) AS status
               FROM partner_bank.instruction WHERE direction = 'INCOMING'
              UNION ALL
             SELECT payment_id,
                    overlay(overlay(left(encode(sha256(convert_to('payflow:suspense:' || payment_id::text, 'UTF8')), 'hex'), 32)
                           PLACING '8' FROM 13) PLACING '8' FROM 17)::uuid,
                    true, is_suspicious, agent_bic, amount_minor, currency, coalesce(suspense_exit, status)
               FROM partner_bank.instruction WHERE direction = 'INCOMING' AND is_suspicious) AS sent
       ON sent.booked_as = entry.payment_id
  LEFT JOIN LATERAL (
       SELECT CASE WHEN NOT sent.is_exit THEN ARRAY['CREDITED', 'HELD_IN_SUSPENSE', 'RETURNING', 'RETURNED']
                   WHEN entry.kind = 'incoming' THEN ARRAY['CREDITED'] ELSE ARRAY['RETURNED'] END AS ended,
              CASE WHEN NOT sent.is_exit THEN 'PENDING'
                   WHEN entry.kind = 'incoming' THEN 'HELD_IN_SUSPENSE' ELSE 'RETURNING' END AS before) AS state ON true
  LEFT JOIN (SELECT entry_id, count(*) AS postings, max(amount_minor) AS amount_minor,
                    max(number) FILTER (WHERE amount_minor < 0) AS debited,
                    max(number) FILTER (WHERE amount_minor > 0) AS credited,
                    bool_or(kind = 'customer' AND amount_minor > 0) AS is_customers, max(currency) AS currency
               FROM account.posting JOIN account.accounts USING (account_id)
              WHERE entry_id IN (SELECT entry_id FROM account.journal_entry WHERE kind IN ('incoming', 'incoming_return'))
              GROUP BY entry_id) AS found USING (entry_id)
  LEFT JOIN (SELECT subject, max(data ->> 'account') AS account
               FROM audit.audit_logs WHERE type = 'incoming.credited' GROUP BY subject) AS told
       ON told.subject = sent.payment_id::text
 WHERE entry.kind IN ('incoming', 'incoming_return')

-- money_left_suspense_as_it_is_told --
-- One that went back was taken by its bank, once: every other return of it was refused.
SELECT 'incoming payment ' || instruction.payment_id::text || ' (' || instruction.told || ')' AS what,
       count(entry.entry_id) FILTER (WHERE entry.kind = CASE instruction.told WHEN 'CREDITED' THEN 'incoming'
                                                                              ELSE 'incoming_return' END) <> 1
       OR instruction.told = 'RETURNED' AND (
              SELECT count(*) FILTER (WHERE status = 'ACCEPTED' AND booked_at IS NOT NULL
                                        AND made.amount_minor = instruction.amount_minor
                                        AND made.currency = instruction.currency) <> 1
                     OR count(*) FILTER (WHERE status <> 'REJECTED') <> 1
                FROM partner_bank.incoming_return AS made WHERE made.payment_id = instruction.payment_id) AS is_broken,
       false AS is_waiting
  FROM (SELECT payment_id, amount_minor, currency, coalesce(suspense_exit, status) AS told,
               overlay(overlay(left(encode(sha256(convert_to('payflow:suspense:' || payment_id::text, 'UTF8')), 'hex'), 32)
                      PLACING '8' FROM 13) PLACING '8' FROM 17)::uuid
                  AS exit_id
          FROM partner_bank.instruction
         WHERE direction = 'INCOMING' AND is_suspicious
           AND coalesce(suspense_exit, status) IN ('CREDITED', 'RETURNED')) AS instruction
  LEFT JOIN account.journal_entry AS entry ON entry.payment_id = instruction.exit_id
 WHERE $1::timestamptz IS NOT NULL
 GROUP BY instruction.payment_id, instruction.told, instruction.amount_minor, instruction.currency

-- money_left_suspense_as_it_was_decided --
SELECT 'incoming payment ' || instruction.payment_id::text || ' (' || instruction.told || ')' AS what,
       review.decided_by IS NULL OR instruction.told = 'CREDITED' AND review.state <> 'CLEARED' AS is_broken,
       false AS is_waiting
  FROM (SELECT payment_id, coalesce(suspense_exit, status) AS told
          FROM partner_bank.instruction WHERE direction = 'INCOMING' AND is_suspicious) AS instruction
  LEFT JOIN ofac.review_case AS review USING (payment_id)
 WHERE instruction.told IN ('CREDITED', 'RETURNING', 'RETURNED') AND $1::timestamptz IS NOT NULL

-- what_banks_took_otherwise_above_the_limit_had_four_eyes --
-- One person's word alone, or twice, books no such money; and both named one reference.
SELECT 'return ' || return_id::text || ' of incoming payment ' || payment_id::text AS what,
       end_requested_by IS NULL OR lower(ended_by) = lower(end_requested_by) OR proof <> end_reference AS is_broken,
       false AS is_waiting
  FROM partner_bank.incoming_return
 WHERE needs_approval AND ended_by IS NOT NULL AND $1::timestamptz IS NOT NULL

-- no_incoming_money_is_left_behind --
-- Each has a next try to come, and one that goes back has its return, which has. One in suspense is asked about without
-- being written; a try of its own it has when it is taken up.
SELECT 'incoming payment ' || incoming.payment_id::text || ' (' || coalesce(incoming.suspense_exit, incoming.status) || ')'
           AS what,
       due.at IS NULL OR due.at < $1 AS is_broken, due.at < now() AS is_waiting
  FROM partner_bank.instruction AS incoming
  LEFT JOIN partner_bank.incoming_return AS made
       ON incoming.suspense_exit = 'RETURNING' AND made.payment_id = incoming.payment_id AND made.status <> 'REJECTED'
  LEFT JOIN ofac.review_case AS review ON review.payment_id = incoming.payment_id
  LEFT JOIN LATERAL (SELECT CASE WHEN incoming.suspense_exit IS NOT NULL THEN made.next_attempt_at
                                 WHEN incoming.status = 'PENDING' THEN incoming.next_attempt_at
                                 WHEN review.state = 'OPEN' THEN 'infinity'
                                 ELSE greatest(incoming.next_attempt_at, review.decided_at, incoming.updated_at) END AS at)
       AS due ON true
 WHERE incoming.direction = 'INCOMING' AND incoming.status IN ('PENDING', 'HELD_IN_SUSPENSE')
   AND incoming.suspense_exit IS DISTINCT FROM 'RETURNED'

-- booked_payments_were_assessed --
SELECT 'payment ' || payment.payment_id::text AS what,
       assessment.payment_id IS NULL OR assessment.amount_minor <> payment.amount_minor
       OR assessment.currency <> payment.currency OR assessment.customer_id <> payment.customer_id
       OR assessment.debtor <> payment.debtor_account
       OR assessment.creditor <> coalesce(payment.agent_bic || '/', '') || payment.creditor_account AS is_broken,
       false AS is_waiting
  FROM account.journal_entry AS entry
  JOIN confirm.transactions AS payment USING (payment_id)
  LEFT JOIN risk.assessment AS assessment USING (payment_id)
 WHERE entry.kind IN ('transfer', 'capture') AND $1::timestamptz IS NOT NULL

-- codes_were_given_where_asked --
SELECT 'payment ' || entry.payment_id::text AS what,
       NOT EXISTS (SELECT FROM otp.challenge
                    WHERE challenge.payment_id = entry.payment_id AND challenge.state = 'USED') AS is_broken,
       false AS is_waiting
  FROM account.journal_entry AS entry
  JOIN risk.assessment AS assessment USING (payment_id)
 WHERE entry.kind IN ('transfer', 'capture') AND assessment.needs_otp AND $1::timestamptz IS NOT NULL

-- matches_were_cleared --
SELECT 'payment ' || entry.payment_id::text AS what,
       NOT EXISTS (SELECT FROM ofac.review_case
                    WHERE review_case.payment_id = entry.payment_id AND review_case.state = 'CLEARED'
                      AND review_case.decided_by IS NOT NULL) AS is_broken,
       false AS is_waiting
  FROM account.journal_entry AS entry
  JOIN risk.assessment AS assessment USING (payment_id)
 WHERE entry.kind IN ('transfer', 'capture') AND assessment.is_possible_match AND $1::timestamptz IS NOT NULL

-- audit_counts_without_gaps --
SELECT 'rows of the audit trail' AS what,
       count(*) <> coalesce(max(sequence), 0)
       OR coalesce(max(sequence), 0) <> (SELECT sequence FROM audit.chain_end) AS is_broken, false AS is_waiting
  FROM audit.audit_logs
 WHERE $1::timestamptz IS NOT NULL

-- ended_payments_are_in_the_audit_trail --
SELECT 'payment ' || payment.payment_id::text AS what,
       recorded.version IS NULL AND payment.updated_at < $1 AS is_broken, recorded.version IS NULL AS is_waiting
  FROM confirm.transactions AS payment
  LEFT JOIN audit.audit_logs AS recorded
       ON recorded.subject = payment.payment_id::text AND recorded.version = payment.version
          AND recorded.source = 'confirm'
 WHERE payment.due_at IS NULL

-- every_event_has_its_position --
SELECT 'batch ' || id::text AS what, position IS NULL AND created_at < $1 AS is_broken, position IS NULL AS is_waiting
  FROM event_log.batch

-- positions_have_no_gaps --
SELECT 'positions of the event log' AS what,
       count(*) <> coalesce(max(position) - min(position) + 1, 0)
       OR coalesce(max(position), (SELECT position FROM event_log.log_end)) <> (SELECT position FROM event_log.log_end)
       AS is_broken, false AS is_waiting
  FROM event_log.batch
 WHERE position IS NOT NULL AND $1::timestamptz IS NOT NULL

-- consumers_keep_up --
-- A consumer may stay a thousand batches behind that hold nothing for it. With Kafka none reads here.
SELECT 'consumer ' || consumer.name AS what,
       consumer.position > log_end.position OR NOT relay.is_on AND EXISTS (
           SELECT FROM event_log.batch
            WHERE batch.position > consumer.position + 1000 AND batch.created_at < $1) AS is_broken,
       NOT relay.is_on AND EXISTS (
           SELECT FROM event_log.batch WHERE batch.position > consumer.position + 1000) AS is_waiting
  FROM event_log.consumer, event_log.log_end, event_log.relay

-- outbox_is_published --
SELECT 'the outbox relay' AS what,
       relay.position > log_end.position OR EXISTS (
           SELECT FROM event_log.batch WHERE batch.position > relay.position AND batch.created_at < $1) AS is_broken,
       relay.position < log_end.position AS is_waiting
  FROM event_log.relay, event_log.log_end
 WHERE relay.is_on

-- no_event_is_set_aside --
SELECT 'event ' || event_id::text || ' for ' || consumer AS what, true AS is_broken, false AS is_waiting
  FROM event_log.dead_letter
 WHERE discarded_at IS NULL AND $1::timestamptz IS NOT NULL

-- customers_were_told_once --
SELECT 'message ' || kind || ' about ' || about AS what, count(*) <> 1 AS is_broken, false AS is_waiting
  FROM notification.message
 WHERE $1::timestamptz IS NOT NULL
 GROUP BY kind, about

-- guards_stand --
SELECT 'constraint ' || wanted.name || ' on ' || wanted.relation AS what,
       NOT EXISTS (SELECT FROM pg_constraint
                    WHERE conname = wanted.name AND convalidated
                      AND conrelid = to_regclass(wanted.relation)) AS is_broken, false AS is_waiting
  FROM unnest($2::text[], $3::text[]) AS wanted (relation, name)
 WHERE $1::timestamptz IS NOT NULL

-- ledger_is_append_only --
SELECT role || ' on ' || relation AS what,
       has_table_privilege(role, relation, 'UPDATE, DELETE, TRUNCATE') AS is_broken, false AS is_waiting
  FROM (VALUES ('payflow_account', 'account.journal_entry'), ('payflow_account', 'account.posting'),
               ('payflow_account', 'account.refused_command'),
               ('payflow_audit', 'audit.audit_logs'), ('payflow_confirm', 'confirm.payment_steps'),
               ('payflow_confirm', 'confirm.return_step')
        UNION ALL
        SELECT 'payflow_account', inhrelid::regclass::text
          FROM pg_inherits WHERE inhparent IN ('account.journal_entry'::regclass, 'account.posting'::regclass))
       AS guarded (role, relation)
 WHERE $1::timestamptz IS NOT NULL

-- audit_rows_hold_no_secrets --
SELECT 'audit row ' || sequence::text AS what,
       data::text ~ $2
       OR data ->> 'debtor_account' <> '' AND data ->> 'debtor_account' NOT LIKE '…%'
       OR data ->> 'creditor_account' <> '' AND data ->> 'creditor_account' NOT LIKE '…%' AS is_broken,
       false AS is_waiting
  FROM audit.audit_logs
 WHERE $1::timestamptz IS NOT NULL

-- events_hold_no_secrets --
SELECT 'batch ' || id::text AS what, encode(events, 'escape') ~ $2 AS is_broken, false AS is_waiting
  FROM event_log.batch
 WHERE $1::timestamptz IS NOT NULL

-- names_are_encrypted --
SELECT 'customer ' || customer_id AS what,
       encode(name_encrypted, 'escape') ~ '^[A-Za-z ''.-]+$' AS is_broken, false AS is_waiting
  FROM account.customers
 WHERE $1::timestamptz IS NOT NULL
