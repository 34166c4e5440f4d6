-- users --
-- Users by name, whatever the case.
SELECT user_id, username, role, customer_id, password_hash, is_enabled, created_at
  FROM users
 WHERE lower(username) = ANY($1::text[]);

-- users_page --
-- Users by name, after one of them.
SELECT user_id, username, role, customer_id, password_hash, is_enabled, created_at
  FROM users
 WHERE $1::text IS NULL OR lower(username) > lower($1)
 ORDER BY lower(username)
 LIMIT $2;

-- has_users --
SELECT EXISTS (SELECT FROM users);

-- insert_users --
-- New users; a name that is taken returns no row and changes nothing.
INSERT INTO users (user_id, username, role, customer_id, password_hash, created_at)
SELECT user_id, username, role, customer_id, password_hash, $6
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[])
       AS t (user_id, username, role, customer_id, password_hash)
 ORDER BY lower(username)
    ON CONFLICT DO NOTHING
RETURNING user_id;

-- set_enabled --
-- Open or close users to sign-in; those that already are as wanted return no row.
UPDATE users
   SET is_enabled = $2, version = version + 1
 WHERE user_id IN (SELECT user_id FROM users WHERE user_id = ANY($1::uuid[]) ORDER BY user_id FOR NO KEY UPDATE)
   AND is_enabled <> $2
RETURNING user_id, version;

-- open_sessions --
-- The users are locked against being disabled meanwhile: whoever disables one finds every session that was opened.
INSERT INTO session (session_id, user_id, opened_at, expires_at)
SELECT t.session_id, t.user_id, t.opened_at, t.expires_at
  FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[])
       AS t (session_id, user_id, opened_at, expires_at)
  JOIN users USING (user_id)
 WHERE users.is_enabled
 ORDER BY t.user_id
   FOR SHARE OF users
RETURNING session_id;

-- add_refresh_tokens --
INSERT INTO refresh_token (token_sha256, session_id, issued_at)
SELECT token_sha256, session_id, $3
  FROM unnest($1::bytea[], $2::uuid[]) AS t (token_sha256, session_id);

-- lock_sessions --
-- The sessions that refresh tokens belong to, locked in one order, so that of two uses of one token one comes first.
SELECT session.session_id
  FROM session
 WHERE session_id IN (SELECT session_id FROM refresh_token WHERE token_sha256 = ANY($1::bytea[]))
 ORDER BY session_id
   FOR NO KEY UPDATE;

-- refresh_tokens --
-- Refresh tokens with their sessions and users, read after the sessions are locked.
SELECT token.token_sha256, token.used_at, session.session_id, session.expires_at, session.ended_at,
       users.user_id, users.username, users.role, users.customer_id, users.password_hash, users.is_enabled,
       users.created_at
  FROM refresh_token AS token
  JOIN session USING (session_id)
  JOIN users USING (user_id)
 WHERE token.token_sha256 = ANY($1::bytea[]);

-- use_refresh_tokens --
UPDATE refresh_token SET used_at = $2 WHERE token_sha256 = ANY($1::bytea[]);

-- end_sessions --
-- End sessions that are still open; returns those that this call ended.
UPDATE session
   SET ended_at = $3, end_reason = t.reason
  FROM (SELECT session.session_id, wanted.reason
          FROM session
          JOIN unnest($1::uuid[], $2::text[]) AS wanted (session_id, reason) USING (session_id)
         WHERE session.ended_at IS NULL
         ORDER BY session.session_id
           FOR NO KEY UPDATE OF session) AS t
 WHERE session.session_id = t.session_id
RETURNING session.session_id;

-- open_sessions_of --
-- Sessions that nobody has ended, those included that can no longer be renewed but may have an access token left.
SELECT session_id FROM session WHERE user_id = ANY($1::uuid[]) AND ended_at IS NULL AND expires_at > $2;

-- revoke --
-- Record revocations under the next number; the counter's row lock makes the numbers follow the commits. One id that
-- is revoked twice keeps the later end.
WITH counted AS (
    UPDATE revocation_count SET number = number + 1 RETURNING number
), written AS (
    INSERT INTO revoked (id, number, ends_at, revoked_at, reason)
    SELECT t.id, counted.number, t.ends_at, $4, t.reason
      FROM unnest($1::text[], $2::timestamptz[], $3::text[]) AS t (id, ends_at, reason), counted
        ON CONFLICT (id) DO UPDATE
       SET ends_at = greatest(revoked.ends_at, excluded.ends_at), number = excluded.number
)
SELECT number FROM counted;

-- revoked_among --
SELECT id FROM revoked WHERE id = ANY($1::text[]);

-- name_generation --
-- Give this database its name, once, whoever comes first.
UPDATE revocation_count SET generation = gen_random_uuid() WHERE generation IS NULL;

-- revocation_count --
SELECT generation, number FROM revocation_count;

-- revocations --
-- Everything that is revoked and has not ended, with the number up to which this is complete: one statement, so one
-- snapshot.
SELECT revocation_count.number AS up_to, revoked.id, revoked.ends_at
  FROM revocation_count
  LEFT JOIN revoked ON revoked.ends_at > $1;

-- forget_revoked --
DELETE FROM revoked WHERE ends_at < $1;

-- forget_sessions --
-- Sessions that ended or expired long ago, with their refresh tokens.
DELETE FROM session WHERE expires_at < $1;
