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
-- New messages and their deliveries. A message that is there already (an event that came again) changes nothing, and
-- gets no second delivery.
WITH added AS (
    INSERT INTO message (message_id, customer_id, kind, about, language, subject, body, created_at)
    SELECT message_id, customer_id, kind, about, language, subject, body, $8
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
           AS t (message_id, customer_id, kind, about, language, subject, body)
     ORDER BY about, kind
        ON CONFLICT (about, kind) DO NOTHING
    RETURNING message_id, body IS NULL AS has_code
)
INSERT INTO delivery (message_id, channel, has_code, next_try_at)
SELECT added.message_id, way.channel, added.has_code, $8
  FROM unnest($9::uuid[], $10::text[]) AS way (message_id, channel)
  JOIN added USING (message_id);

-- claim_codes --
-- Take codes that nobody else is sending. The try is counted before it is made: one that ends in a crash counts.
WITH free AS (
    SELECT delivery.message_id, delivery.channel, message.about
      FROM message
      JOIN delivery USING (message_id)
     WHERE message.about = ANY($1::text[]) AND message.kind = 'otp_code'
       AND delivery.state = 'PENDING' AND delivery.next_try_at <= $2
     ORDER BY delivery.message_id
       FOR UPDATE OF delivery
)
UPDATE delivery
   SET next_try_at = $3, tries = delivery.tries + 1
  FROM free
 WHERE delivery.message_id = free.message_id AND delivery.channel = free.channel
RETURNING free.about, delivery.tries;

-- codes --
-- How far the messages of these challenges have come.
SELECT message.about, message.message_id, delivery.channel, delivery.state
  FROM message
  JOIN delivery USING (message_id)
 WHERE message.about = ANY($1::text[]) AND message.kind = 'otp_code';

-- claim_due --
-- Take messages that are due and that no other process is taking. Their claim runs out at $2, should we not come back.
WITH due AS (
    SELECT message_id, channel
      FROM delivery
     WHERE state = 'PENDING' AND NOT has_code AND next_try_at <= $1
     ORDER BY next_try_at
     LIMIT $3
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE delivery
       SET next_try_at = $2, tries = delivery.tries + 1
      FROM due
     WHERE delivery.message_id = due.message_id AND delivery.channel = due.channel
    RETURNING delivery.message_id, delivery.channel, delivery.tries
)
SELECT claimed.message_id, claimed.channel, claimed.tries,
       message.customer_id, message.kind, message.subject, message.body
  FROM claimed
  JOIN message USING (message_id)
 ORDER BY claimed.message_id;

-- finish --
-- What tries came to; a final state is never left.
UPDATE delivery
   SET state = t.state, next_try_at = t.next_try_at, ended_at = t.ended_at, reason = t.reason
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[])
       AS t (message_id, channel, state, next_try_at, ended_at, reason)
 WHERE delivery.message_id = t.message_id AND delivery.channel = t.channel AND delivery.state = 'PENDING';

-- list_messages --
-- A customer's messages, newest first.
SELECT message.message_id, message.kind, delivery.channel, delivery.state, message.subject, message.created_at,
       CASE WHEN delivery.state = 'DELIVERED' THEN delivery.ended_at END AS delivered_at
  FROM message
  JOIN delivery USING (message_id)
 WHERE message.customer_id = $1
 ORDER BY message.message_id DESC, delivery.channel
 LIMIT $2;

-- delete_before --
-- Forget old messages with their deliveries and what the demo channel kept of them.
WITH old AS (
    DELETE FROM message WHERE created_at < $1 RETURNING message_id
), old_deliveries AS (
    DELETE FROM delivery USING old WHERE delivery.message_id = old.message_id
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
