-- Above a limit two people say that a bank has taken held money back by other means: the first one's word waits here.
-- The release before this one knows nothing of it: its processes leave these columns as they are, and where a word waits
-- they are held to two people all the same.
SET LOCAL lock_timeout = '5s';
ALTER TABLE incoming_return
    ADD COLUMN needs_approval   boolean NOT NULL DEFAULT false,
    ADD COLUMN end_reference    text,
    ADD COLUMN end_requested_by text,
    ADD COLUMN end_requested_at timestamptz,
    ADD COLUMN end_expires_at   timestamptz,
    ADD CONSTRAINT four_eyes_are_two_people CHECK (lower(ended_by) <> lower(end_requested_by)),
    ADD CONSTRAINT two_people_name_one_reference CHECK (proof <> end_reference IS NOT TRUE),
    ADD CONSTRAINT a_return_above_the_limit_is_ended_by_a_second_person CHECK (
        NOT needs_approval OR proof IS NULL OR end_requested_by IS NOT NULL),
    ADD CONSTRAINT a_word_that_waits_is_whole CHECK (
        num_nonnulls(end_reference, end_requested_by, end_requested_at, end_expires_at) IN (0, 4));
