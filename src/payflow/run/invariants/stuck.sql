-- What needs a person, or has outlived its deadline. Each query answers `what` (an id that other verbs take), `since`,
-- and `why`. $1: the instant before which something should have been done. Named in stuck.py.

-- payments_past_their_deadline --
SELECT payment_id::text AS what, due_at AS since, 'is ' || state || ' and its next step is overdue' AS why
  FROM confirm.transactions
 WHERE due_at < $1

-- scheduled_payments_past_their_day --
-- Each try moves the next one ahead: what counts is the day that it was ordered for.
SELECT payment_id::text AS what, execute_at AS since, 'was to be made on its day and could not be made yet' AS why
  FROM confirm.transactions
 WHERE state = 'SCHEDULED' AND execute_at < $1 AND due_at >= $1

-- bulk_orders_past_their_deadline --
-- Taken up again and again without a line getting its result is no going on either.
SELECT bulk_id::text AS what, updated_at AS since,
       'is ' || state || CASE WHEN due_at < $1 THEN ' and its next step is overdue'
                              ELSE ' and no line has got a result for 10 minutes' END AS why
  FROM confirm.bulk_order
 WHERE due_at < $1
    OR state IN ('PROCESSING', 'CANCELLING') AND updated_at < $1::timestamptz - interval '10 minutes'
-- returns_past_their_deadline --
SELECT return_id::text AS what, due_at AS since, 'is ' || state || ' and its next step is overdue' AS why
  FROM confirm.payment_return
 WHERE due_at < $1

-- returns_that_wait --
SELECT return_id::text AS what, requested_at AS since, 'waits for a second person, ' || requested_by || ' asked for it' AS why
  FROM confirm.payment_return
 WHERE state = 'AWAITING_APPROVAL' AND requested_at < $1::timestamptz - interval '1 day'

-- payments_without_a_word --
-- Enquired about again and again: after a day somebody should call the bank.
SELECT payment.payment_id::text AS what, payment.updated_at AS since,
       'is at ' || payment.agent_bic || ', which does not say whether it accepted' AS why
  FROM confirm.transactions AS payment
 WHERE payment.state = 'SUBMITTED' AND payment.updated_at < $1::timestamptz - interval '1 day'

-- reviews_that_wait --
SELECT payment_id::text AS what, opened_at AS since, 'waits for a compliance officer' AS why
  FROM ofac.review_case
 WHERE state = 'OPEN' AND opened_at < $1::timestamptz - interval '1 day'

-- decisions_not_delivered --
SELECT payment_id::text AS what, decided_at AS since, 'was reviewed, and confirm has not heard of it' AS why
  FROM ofac.review_case
 WHERE state <> 'OPEN' AND delivered_at IS NULL AND decided_at < $1

-- incoming_past_their_deadline --
-- As long as each may rest where it is (CARE in partner_bank's domain).
SELECT incoming.payment_id::text AS what, incoming.updated_at AS since,
       'came from ' || incoming.agent_bic || ' and is ' || coalesce(incoming.suspense_exit, incoming.status)
       || coalesce(', and was refused by its bank (' || refused.reason || ')', '')
       || coalesce(', and its bank has said ' || denied.never_received || ' times that the return never came ('
                   || coalesce(denied.last_answer, 'no reason given') || '); it is tried next at '
                   || to_char(denied.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), '') AS why
  FROM partner_bank.instruction AS incoming
  LEFT JOIN LATERAL (SELECT coalesce(reason_code, 'no reason given') AS reason FROM partner_bank.incoming_return AS made
                      WHERE made.payment_id = incoming.payment_id AND made.status = 'REJECTED'
                      ORDER BY made.number DESC LIMIT 1) AS refused ON true
  LEFT JOIN partner_bank.incoming_return AS denied
       ON denied.payment_id = incoming.payment_id AND denied.status = 'UNKNOWN' AND denied.never_received > 0
 WHERE incoming.direction = 'INCOMING'
   AND incoming.status IN ('PENDING', 'HELD_IN_SUSPENSE')
   AND incoming.suspense_exit IS DISTINCT FROM 'RETURNED'
   AND incoming.updated_at < $1::timestamptz
     - CASE coalesce(incoming.suspense_exit, incoming.status) WHEN 'PENDING' THEN interval '300 seconds'
                                                              WHEN 'HELD_IN_SUSPENSE' THEN interval '86400 seconds'
                                                              WHEN 'RETURNING' THEN interval '3600 seconds' END

-- money_taken_back_that_waits --
-- At once: nothing is sent meanwhile.
SELECT payment_id::text AS what, end_requested_at AS since,
       'was taken back by ' || agent_bic || ' by other means, says ' || end_requested_by
       || ', and waits for a second person until '
       || to_char(end_expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') AS why
  FROM partner_bank.incoming_return
 WHERE status = 'UNKNOWN' AND end_expires_at > now() AND $1::timestamptz IS NOT NULL

-- decided_and_still_in_suspense --
-- A decision is asked for every few seconds; money that is held has a case from before it was.
SELECT instruction.payment_id::text AS what, coalesce(review.decided_at, instruction.updated_at) AS since,
       'is on the suspense account and ' ||
       CASE WHEN review.payment_id IS NULL THEN 'has no review' ELSE 'its review is ' || review.state END AS why
  FROM partner_bank.instruction AS instruction
  LEFT JOIN ofac.review_case AS review USING (payment_id)
 WHERE instruction.status = 'HELD_IN_SUSPENSE' AND instruction.suspense_exit IS NULL
   AND review.state IS DISTINCT FROM 'OPEN'
   AND coalesce(review.decided_at, instruction.updated_at) < $1::timestamptz - interval '2 minutes'

-- events_set_aside --
SELECT event_id::text AS what, failed_at AS since, 'was set aside by ' || consumer || ': ' || left(cause, 80) AS why
  FROM event_log.dead_letter
 WHERE discarded_at IS NULL AND $1::timestamptz IS NOT NULL

-- events_not_published --
SELECT 'batch ' || batch.id::text AS what, batch.created_at AS since, 'is not in Kafka' AS why
  FROM event_log.batch, event_log.relay
 WHERE relay.is_on AND batch.position > relay.position AND batch.created_at < $1

-- events_not_numbered --
SELECT 'batch ' || id::text AS what, created_at AS since, 'has no place in the event log: does any consumer run?' AS why
  FROM event_log.batch
 WHERE position IS NULL AND created_at < $1

-- messages_not_delivered --
SELECT message.message_id::text AS what, message.created_at AS since,
       'could not be sent by ' || delivery.channel || coalesce(': ' || delivery.reason, '') AS why
  FROM notification.delivery JOIN notification.message USING (message_id)
 WHERE delivery.state = 'FAILED' AND $1::timestamptz IS NOT NULL
   -- Another way may have brought it, or may still.
   AND NOT EXISTS (SELECT FROM notification.delivery AS other
                    WHERE other.message_id = delivery.message_id AND other.state <> 'FAILED')
