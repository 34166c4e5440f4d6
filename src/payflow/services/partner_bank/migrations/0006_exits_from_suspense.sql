-- The id under which money leaves suspense is made from its payment's and cannot be read backwards. It is kept, so that the
-- line that it has in a statement leads to its payment.
CREATE TABLE exit_from_suspense (
    exit_id    uuid PRIMARY KEY,
    payment_id uuid NOT NULL
);

-- Of all that was ever held: what leaves from now on is noted as it leaves, unless by the release before, while an update
-- runs.
INSERT INTO exit_from_suspense (exit_id, payment_id)
SELECT overlay(overlay(left(encode(sha256(convert_to('payflow:suspense:' || payment_id::text, 'UTF8')), 'hex'), 32)
       PLACING '8' FROM 13) PLACING '8' FROM 17)::uuid, payment_id
  FROM instruction
 WHERE direction = 'INCOMING' AND is_suspicious;

GRANT SELECT, INSERT ON exit_from_suspense TO payflow_partner_bank;
