-- preferences --
-- How these customers want to be written to; most have no row.
SELECT customer_id, language, channels FROM preference WHERE customer_id = ANY($1::text[]);

-- set_preferences --
-- The last word of a customer holds.
INSERT INTO preference (customer_id, language, channels, changed_at)
SELECT customer_id, language, string_to_array(channels, ','), $4
  FROM (SELECT customer_id, language, channels
          FROM unnest($1::text[], $2::text[], $3::text[]) AS t (customer_id, language, channels)
         ORDER BY customer_id) AS sorted
    ON CONFLICT (customer_id) DO UPDATE
   SET language = excluded.language, channels = excluded.channels, changed_at = excluded.changed_at;

-- add_messages --
-- New messages and a delivery for each way they may go: the first is tried, the others wait for it to fail. A message
-- without a code is delivered at once by a channel that only keeps it. A message that is there already (an event that
-- came again) changes nothing, and gets no second delivery.
WITH added AS (
    INSERT INTO message (message_id, customer_id, kind, about, language, subject, body, created_at, short)
    SELECT message_id, customer_id, kind, about, language, subject, body, $8, short
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $13::text[])
           AS t (message_id, customer_id, kind, about, language, subject, body, short)
     ORDER BY about, kind
        ON CONFLICT (about, kind) DO NOTHING
    RETURNING message_id
)
INSERT INTO delivery (message_id, channel, place, has_code, next_try_at, state, tries, ended_at)
SELECT way.message_id, way.channel, way.place, way.has_code, $8,
       CASE WHEN is_kept THEN 'DELIVERED' WHEN way.place = 0 THEN 'PENDING' ELSE 'WAITING' END,
       is_kept::integer, CASE WHEN is_kept THEN $8 END
  FROM unnest($9::uuid[], $10::text[], $11::smallint[], $14::boolean[]) AS way (message_id, channel, place, has_code)
 CROSS JOIN LATERAL (
       SELECT way.place = 0 AND way.channel = ANY($12::text[]) AND NOT way.has_code AS is_kept) AS kept
 -- IS TRUE has it look them up in a hash table, where a join would compare each with each.
 WHERE (way.message_id IN (SELECT message_id FROM added)) IS TRUE;

-- claim_codes --
-- Take codes that nobody else is sending, with all the ways that have not failed for good. The lock is on every way of a
-- message, so that two calls never send one code.
WITH asked AS (
    SELECT delivery.message_id, delivery.channel, delivery.place, delivery.state, delivery.next_try_at,
           delivery.tries, delivery.is_doubtful, message.about
      FROM message
      JOIN delivery USING (message_id)
     WHERE message.about = ANY($1::text[]) AND message.kind = 'otp_code'
     ORDER BY delivery.message_id, delivery.channel
       FOR UPDATE OF delivery
), free AS (
    SELECT message_id
      FROM asked
     GROUP BY message_id
    HAVING bool_and(state NOT IN ('SENT', 'DELIVERED'))
       AND bool_and(state = 'FAILED' OR next_try_at <= $2)
), claimed AS (
    UPDATE delivery
       SET next_try_at = $3
      FROM asked
     WHERE delivery.message_id = asked.message_id AND delivery.channel = asked.channel
       AND delivery.state IN ('WAITING', 'PENDING')
       AND (asked.message_id IN (SELECT message_id FROM free)) IS TRUE
    RETURNING asked.about, delivery.channel, delivery.place, asked.tries, asked.is_doubtful
)
SELECT about, channel, tries, is_doubtful FROM claimed ORDER BY about, place;

-- codes --
-- How far the messages of these challenges have come: the way that has brought one furthest, else the first.
SELECT DISTINCT ON (message.about) message.about, message.message_id, delivery.channel, delivery.state
  FROM message
  JOIN delivery USING (message_id)
 WHERE message.about = ANY($1::text[]) AND message.kind = 'otp_code'
 ORDER BY message.about, delivery.state IN ('SENT', 'DELIVERED') DESC, delivery.place;

-- release_codes --
-- Codes that were not sent, for whoever asks next.
UPDATE delivery
   SET next_try_at = $2
 WHERE message_id = ANY($1::uuid[]) AND has_code AND state IN ('WAITING', 'PENDING');

-- claim_due --
-- Take messages that are due by one channel, or by any that is not in use, and that no other process is taking. Their
-- claim runs out at $2, should we not come back; until we do, nobody knows whether the try reached anybody.
WITH due AS (
    SELECT message_id, channel, is_doubtful
      FROM delivery
     WHERE state = 'PENDING' AND NOT has_code AND next_try_at <= $1
       AND (channel = $4 OR ($4::text IS NULL AND channel <> ALL($5::text[])))
     ORDER BY next_try_at
     LIMIT $3
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE delivery
       SET next_try_at = $2, tries = delivery.tries + 1, is_doubtful = true
      FROM due
     WHERE delivery.message_id = due.message_id AND delivery.channel = due.channel
    RETURNING delivery.message_id, delivery.channel, delivery.tries, due.is_doubtful
)
SELECT claimed.message_id, claimed.channel, claimed.tries, claimed.is_doubtful,
       message.customer_id, message.kind, message.subject, message.body, message.created_at,
       coalesce(message.short, message.body) AS short,
       EXISTS (SELECT FROM delivery AS other
                WHERE other.message_id = claimed.message_id AND other.state = 'WAITING') AS has_next_way
  FROM claimed
  JOIN message USING (message_id)
 ORDER BY claimed.message_id;

-- finish --
-- What tries, and vendors' later words, came to; a final state is never left. Where a way has failed, the next one of the
-- message begins; not for codes, whose ways are all tried by the call that brings them.
WITH ended AS (
    UPDATE delivery
       SET state = t.state, next_try_at = t.next_try_at, ended_at = t.ended_at, reason = t.reason,
           tries = greatest(delivery.tries, t.tries), is_doubtful = t.is_doubtful,
           vendor_id = coalesce(t.vendor_id, delivery.vendor_id),
           sent_at = coalesce(delivery.sent_at, CASE WHEN t.state = 'SENT' THEN t.ended_at END)
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[],
                  $8::boolean[], $9::smallint[])
           AS t (message_id, channel, state, next_try_at, ended_at, reason, vendor_id, is_doubtful, tries)
     WHERE delivery.message_id = t.message_id AND delivery.channel = t.channel
       AND (delivery.state IN ('WAITING', 'PENDING')
            OR (delivery.state = 'SENT' AND t.state IN ('DELIVERED', 'FAILED')))
    RETURNING delivery.message_id, delivery.place, delivery.state, delivery.has_code, t.ended_at
), next AS (
    SELECT DISTINCT ON (ended.message_id) ended.message_id, waiting.channel, ended.ended_at
      FROM ended
      JOIN delivery AS waiting USING (message_id)
     WHERE ended.state = 'FAILED' AND NOT ended.has_code AND waiting.state = 'WAITING'
       AND waiting.place > ended.place
     ORDER BY ended.message_id, waiting.place
)
UPDATE delivery
   SET state = 'PENDING', next_try_at = next.ended_at
  FROM next
 WHERE delivery.message_id = next.message_id AND delivery.channel = next.channel;

-- lock_deliveries --
-- Deliveries that vendors tell about, locked in one order.
SELECT delivery.message_id, delivery.channel, delivery.state
  FROM delivery
  JOIN unnest($1::uuid[], $2::text[]) AS asked (message_id, channel) USING (message_id, channel)
 ORDER BY delivery.message_id, delivery.channel
   FOR UPDATE OF delivery;

-- add_receipts --
-- What vendors told; a word that is there already changes nothing.
INSERT INTO receipt (vendor, event_id, message_id, channel, vendor_id, status, reason, occurred_at, received_at)
SELECT vendor, event_id, message_id, channel, vendor_id, status, reason, occurred_at, $9
  FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
       AS t (vendor, event_id, message_id, channel, vendor_id, status, reason, occurred_at)
 ORDER BY vendor, event_id
    ON CONFLICT (vendor, event_id) DO NOTHING
RETURNING vendor, event_id;

-- list_messages --
-- A customer's messages, newest first; ways that were not needed are not shown.
SELECT message.message_id, message.kind, delivery.channel, delivery.state, message.subject, message.created_at,
       CASE WHEN delivery.state = 'DELIVERED' THEN delivery.ended_at END AS delivered_at,
       delivery.sent_at, delivery.reason
  FROM message
  JOIN delivery USING (message_id)
 WHERE message.customer_id = $1 AND delivery.state <> 'WAITING'
 ORDER BY message.message_id DESC, delivery.place
 LIMIT $2;

-- delete_before --
-- Forget old messages with their deliveries, what vendors told of them, and what the demo channel kept of them.
WITH old AS (
    DELETE FROM message WHERE created_at < $1 RETURNING message_id
), old_deliveries AS (
    DELETE FROM delivery USING old WHERE delivery.message_id = old.message_id
), old_receipts AS (
    DELETE FROM receipt USING old WHERE receipt.message_id = old.message_id
), old_demo AS (
    DELETE FROM demo_outbox USING old WHERE demo_outbox.message_id = old.message_id
)
SELECT count(*) FROM old;

-- demo_insert --
-- The demo channel's outbox; the same message again changes nothing.
INSERT INTO demo_outbox (message_id, customer_id, kind, transaction_id, content_encrypted, sent_at, expires_at)
SELECT message_id, customer_id, kind, transaction_id, content_encrypted, $7, expires_at
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::timestamptz[])
       AS t (message_id, customer_id, kind, transaction_id, content_encrypted, expires_at)
 ORDER BY message_id
    ON CONFLICT (message_id) DO NOTHING;

-- demo_newest_codes --
-- The newest code for each question; the place of the question comes back with it.
SELECT asked.place, newest.message_id, newest.customer_id, newest.transaction_id, newest.content_encrypted,
       newest.sent_at, newest.expires_at
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (transaction_id, customer_id, place)
 CROSS JOIN LATERAL (
       SELECT message_id, customer_id, transaction_id, content_encrypted, sent_at, expires_at
         FROM demo_outbox
        WHERE kind = 'otp_code' AND transaction_id = asked.transaction_id
          AND (asked.customer_id IS NULL OR customer_id = asked.customer_id)
        ORDER BY sent_at DESC, message_id DESC
        LIMIT 1) AS newest;

-- lock_device_owners --
-- One registration of a customer's at a time, so that their number stays bounded; sorted, so that none wait in a ring.
SELECT pg_advisory_xact_lock(hashtext('payflow.notification.devices'), hashtext(customer_id))
  FROM (SELECT DISTINCT customer_id FROM unnest($1::text[]) AS t (customer_id) ORDER BY customer_id) AS sorted;

-- register_devices --
-- A token that is known keeps its device's id and follows its newest customer.
INSERT INTO device (device_id, customer_id, platform, token_digest, token_encrypted, registered_at, seen_at)
SELECT device_id, customer_id, platform, token_digest, token_encrypted, $6, $6
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::bytea[])
       AS t (device_id, customer_id, platform, token_digest, token_encrypted)
 ORDER BY token_digest
    ON CONFLICT (token_digest) DO UPDATE
   SET customer_id = excluded.customer_id, platform = excluded.platform, seen_at = excluded.seen_at,
       token_encrypted = excluded.token_encrypted
RETURNING device_id, customer_id, platform, token_digest, registered_at, seen_at;

-- forget_surplus_devices --
-- Of each of these customers only the $2 devices seen last are kept.
DELETE FROM device
 USING (SELECT device_id, row_number() OVER (PARTITION BY customer_id ORDER BY seen_at DESC, device_id DESC) AS rank
          FROM device
         WHERE customer_id = ANY($1::text[])) AS ranked
 WHERE device.device_id = ranked.device_id AND ranked.rank > $2;

-- devices_of_customers --
-- Where these customers' push messages go.
SELECT device_id, customer_id, platform, token_digest, token_encrypted, registered_at, seen_at
  FROM device
 WHERE customer_id = ANY($1::text[])
 ORDER BY customer_id, seen_at DESC, device_id DESC;

-- remove_devices --
-- Forget devices, each only if it is that customer's.
DELETE FROM device
 USING unnest($1::text[], $2::uuid[]) AS gone (customer_id, device_id)
 WHERE device.device_id = gone.device_id AND device.customer_id = gone.customer_id
RETURNING device.customer_id, device.device_id;

-- forget_devices --
-- Forget devices that their vendor says are gone.
DELETE FROM device WHERE device_id = ANY($1::uuid[]);

-- add_webhooks --
-- New webhooks; one whose id exists changes nothing.
INSERT INTO webhook (webhook_id, url, event_types, description, customer_id, state, disabled_reason, secrets_encrypted,
                     failing_since, version, created_by, created_at, updated_at)
SELECT webhook_id, url, string_to_array(event_types, ','), description, customer_id, state, disabled_reason,
       secrets_encrypted, failing_since, version, created_by, created_at, updated_at
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[],
              $9::timestamptz[], $10::integer[], $11::text[], $12::timestamptz[], $13::timestamptz[])
       AS t (webhook_id, url, event_types, description, customer_id, state, disabled_reason, secrets_encrypted,
             failing_since, version, created_by, created_at, updated_at)
 ORDER BY webhook_id
    ON CONFLICT (webhook_id) DO NOTHING;

-- lock_webhook_count --
-- One transaction at a time adds webhooks, so that their bound holds.
SELECT pg_advisory_xact_lock(hashtext('payflow.notification.webhooks'));

-- count_webhooks --
-- How many there are.
SELECT count(*) FROM webhook;

-- lock_webhooks --
-- These webhooks, locked in one order.
SELECT webhook_id, url, event_types, description, customer_id, state, disabled_reason, secrets_encrypted,
       failing_since, version, created_by, created_at, updated_at
  FROM webhook
 WHERE webhook_id = ANY($1::uuid[])
 ORDER BY webhook_id
   FOR UPDATE;

-- webhooks --
-- These webhooks.
SELECT webhook_id, url, event_types, description, customer_id, state, disabled_reason, secrets_encrypted,
       failing_since, version, created_by, created_at, updated_at
  FROM webhook
 WHERE webhook_id = ANY($1::uuid[]);

-- webhooks_before --
-- A page of webhooks, newest first.
SELECT webhook_id, url, event_types, description, customer_id, state, disabled_reason, secrets_encrypted,
       failing_since, version, created_by, created_at, updated_at
  FROM webhook
 WHERE $1::uuid IS NULL OR webhook_id < $1
 ORDER BY webhook_id DESC
 LIMIT $2;

-- save_webhooks --
-- What may change of a webhook.
UPDATE webhook
   SET url = t.url, event_types = string_to_array(t.event_types, ','), description = t.description, state = t.state,
       disabled_reason = t.disabled_reason, secrets_encrypted = t.secrets_encrypted, failing_since = t.failing_since,
       version = t.version, updated_at = t.updated_at
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::timestamptz[],
              $9::integer[], $10::timestamptz[])
       AS t (webhook_id, url, event_types, description, state, disabled_reason, secrets_encrypted, failing_since,
             version, updated_at)
 WHERE webhook.webhook_id = t.webhook_id;

-- delete_webhooks --
-- Forget webhooks; their deliveries go with them.
DELETE FROM webhook WHERE webhook_id = ANY($1::uuid[]);

-- listening_webhooks --
-- Who hears of events now. The key lock keeps them there until their deliveries are written.
SELECT webhook_id, url, event_types, description, customer_id, state, disabled_reason, failing_since, version,
       created_by, created_at, updated_at
  FROM webhook
 WHERE state = 'ENABLED'
 ORDER BY webhook_id
   FOR KEY SHARE;

-- add_webhook_deliveries --
-- New deliveries, due at once; an event that the webhook has already changes nothing.
INSERT INTO webhook_delivery (delivery_id, webhook_id, event_id, event_type, subject, body, next_attempt_at, created_at)
SELECT delivery_id, webhook_id, event_id, event_type, subject, body, $7, $7
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bytea[])
       AS t (delivery_id, webhook_id, event_id, event_type, subject, body)
 ORDER BY webhook_id, event_id
    ON CONFLICT (webhook_id, event_id) DO NOTHING;

-- claim_webhooks --
-- Take deliveries that are due, a few of each enabled webhook and fewer of one that is failing: neither a slow receiver
-- nor a dead one uses up what the others need. The attempt is counted before it is made: one that ends in a crash counts.
WITH due AS (
    SELECT delivery.delivery_id, webhook.webhook_id, webhook.url, webhook.secrets_encrypted, webhook.failing_since
      FROM webhook
     CROSS JOIN LATERAL (
           SELECT delivery_id
             FROM webhook_delivery
            WHERE webhook_id = webhook.webhook_id AND state = 'PENDING' AND next_attempt_at <= $1
              AND (leased_until IS NULL OR leased_until <= $1)
            ORDER BY next_attempt_at
            LIMIT CASE WHEN webhook.failing_since IS NULL THEN $5::integer ELSE $6::integer END
              FOR UPDATE SKIP LOCKED) AS delivery
     WHERE webhook.state = 'ENABLED' AND webhook.webhook_id <> ALL($3::uuid[])
     LIMIT $4
)
UPDATE webhook_delivery AS delivery
   SET leased_until = $2, next_attempt_at = $2, last_attempt_at = $1, attempts = delivery.attempts + 1
  FROM due
 WHERE delivery.delivery_id = due.delivery_id
RETURNING delivery.delivery_id, delivery.event_id, delivery.body, delivery.attempts,
          delivery.attempts - delivery.attempts_before AS tries,
          due.webhook_id, due.url, due.secrets_encrypted, due.failing_since;

-- settle_webhooks --
-- What attempts came to. One whose lease ran out and that was taken again has a higher number by now.
UPDATE webhook_delivery AS delivery
   SET state = t.state, next_attempt_at = t.next_attempt_at, leased_until = NULL, status_code = t.status_code,
       error = t.error, delivered_at = CASE WHEN t.state = 'DELIVERED' THEN t.at END
  FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::timestamptz[], $5::smallint[], $6::text[], $7::timestamptz[])
       AS t (delivery_id, attempts, state, next_attempt_at, status_code, error, at)
 WHERE delivery.delivery_id = t.delivery_id AND delivery.attempts = t.attempts AND delivery.state = 'PENDING'
RETURNING delivery.delivery_id;

-- redeliver_webhooks --
-- Due again with all their tries before them; those that somebody is sending at this moment are left alone.
UPDATE webhook_delivery
   SET state = 'PENDING', next_attempt_at = $2, leased_until = NULL, attempts_before = attempts, delivered_at = NULL
 WHERE delivery_id IN (SELECT delivery_id
                         FROM webhook_delivery
                        WHERE delivery_id = ANY($1::uuid[]) AND (leased_until IS NULL OR leased_until <= $2)
                        ORDER BY delivery_id
                          FOR UPDATE);

-- webhook_deliveries --
-- A page of a webhook's deliveries, newest first.
SELECT delivery_id, event_id, event_type, subject, state, attempts, status_code, error,
       CASE WHEN state = 'PENDING' THEN next_attempt_at END AS next_attempt_at, last_attempt_at, delivered_at, created_at
  FROM webhook_delivery
 WHERE webhook_id = $1 AND ($2::text IS NULL OR state = $2) AND ($3::uuid IS NULL OR delivery_id < $3)
 ORDER BY delivery_id DESC
 LIMIT $4;

-- find_webhook_deliveries --
-- Deliveries by their own id or their event's; the id that was asked for comes back with each.
WITH asked AS (
    SELECT webhook_id, id FROM unnest($1::uuid[], $2::uuid[]) AS t (webhook_id, id)
), found AS (
    SELECT asked.id AS asked, delivery.delivery_id
      FROM asked
      JOIN webhook_delivery AS delivery ON delivery.delivery_id = asked.id AND delivery.webhook_id = asked.webhook_id
     UNION ALL
    SELECT asked.id, delivery.delivery_id
      FROM asked
      JOIN webhook_delivery AS delivery ON delivery.webhook_id = asked.webhook_id AND delivery.event_id = asked.id
)
SELECT found.asked, delivery_id, event_id, event_type, subject, state, attempts, status_code, error,
       CASE WHEN state = 'PENDING' THEN next_attempt_at END AS next_attempt_at, last_attempt_at, delivered_at, created_at
  FROM found
  JOIN webhook_delivery USING (delivery_id);

-- look_for_listeners --
-- Whether anybody hears of events, and whether the consumer stands before the log's end. Takes no lock: a look a second.
SELECT EXISTS (SELECT FROM webhook WHERE state = 'ENABLED') AS is_heard,
       coalesce((SELECT position FROM event_log.consumer WHERE name = $1), -1)
       < (SELECT position FROM event_log.log_end) AS is_behind;

-- pass_events_over --
-- Move the consumer to the end of the log, unless somebody listens: in one statement, so in one view of both.
INSERT INTO event_log.consumer AS consumer (name, position)
SELECT $1, position
  FROM event_log.log_end
 WHERE NOT EXISTS (SELECT FROM webhook WHERE state = 'ENABLED')
    ON CONFLICT (name) DO UPDATE
   SET position = excluded.position, updated_at = now()
 WHERE consumer.position < excluded.position;

-- delete_webhook_deliveries_before --
-- Forget old deliveries; returns how many.
WITH old AS (DELETE FROM webhook_delivery WHERE created_at < $1 RETURNING 1)
SELECT count(*) FROM old;
