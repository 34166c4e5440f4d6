-- How often a bank has said that a return never came, with which reason last, and when: it is sent again ever more seldom.
-- The release before this one leaves these columns as they are, and sends as often as it did.
SET LOCAL lock_timeout = '5s';
ALTER TABLE incoming_return
    ADD COLUMN never_received integer NOT NULL DEFAULT 0,
    ADD COLUMN last_answer    text,
    ADD COLUMN last_answer_at timestamptz,
    ADD CONSTRAINT what_never_came_was_said_at_some_time CHECK ((never_received > 0) = (last_answer_at IS NOT NULL));
