-- Review cases and the proofs of clear names. What names people (the screened names, the officer's comment) is
-- encrypted; a clear name leaves only a keyed digest.

CREATE TABLE cleared_name (
    name_digest      bytea       NOT NULL,
    list_version     text        NOT NULL,
    first_cleared_at timestamptz NOT NULL,
    PRIMARY KEY (name_digest, list_version),
    CONSTRAINT a_name_digest_has_32_bytes CHECK (octet_length(name_digest) = 32)
);

CREATE TABLE review_case (
    review_id         uuid        PRIMARY KEY,
    payment_id        uuid        NOT NULL,
    customer_id       text        NOT NULL,
    list_version      text        NOT NULL,
    matches           jsonb       NOT NULL,
    names_encrypted   bytea       NOT NULL,
    opened_at         timestamptz NOT NULL,
    state             text        NOT NULL DEFAULT 'OPEN',
    decided_at        timestamptz,
    decided_by        text,
    comment_encrypted bytea,
    deliver_after     timestamptz,
    delivery_tries    integer     NOT NULL DEFAULT 0,
    delivered_at      timestamptz,
    CONSTRAINT one_case_per_payment UNIQUE (payment_id),
    CONSTRAINT a_case_state_is_known CHECK (state IN ('OPEN', 'CLEARED', 'BLOCKED')),
    CONSTRAINT matches_are_a_list CHECK (jsonb_typeof(matches) = 'array'),
    CONSTRAINT a_decided_case_has_its_decision CHECK (
        (state = 'OPEN') = (decided_at IS NULL)
        AND (state = 'OPEN') = (decided_by IS NULL)
        AND (state = 'OPEN') = (deliver_after IS NULL)
    ),
    CONSTRAINT only_a_decided_case_is_delivered CHECK (state <> 'OPEN' OR delivered_at IS NULL)
);
CREATE INDEX cases_by_state ON review_case (state, review_id DESC);
CREATE INDEX decisions_to_deliver ON review_case (deliver_after) WHERE delivered_at IS NULL AND state <> 'OPEN';

-- The service decides only open cases; this holds whatever else may be written under its name.
CREATE FUNCTION refuse_second_decision() RETURNS trigger
    LANGUAGE plpgsql AS
$$
BEGIN
    RAISE EXCEPTION 'the decision about a review case is final'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'a_decision_is_final';
END
$$;
CREATE TRIGGER a_decision_is_final
    BEFORE UPDATE OF state, decided_at, decided_by, comment_encrypted ON review_case
    FOR EACH ROW WHEN (OLD.state <> 'OPEN') EXECUTE FUNCTION refuse_second_decision();

-- A case is made open and without a decision; what it was opened for is never changed, and nothing is ever removed.
GRANT SELECT, INSERT ON cleared_name TO payflow_ofac;
GRANT SELECT,
      INSERT (review_id, payment_id, customer_id, list_version, matches, names_encrypted, opened_at),
      UPDATE (state, decided_at, decided_by, comment_encrypted, deliver_after, delivery_tries, delivered_at)
   ON review_case TO payflow_ofac;
