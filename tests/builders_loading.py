"""Records of every kind to load, and files that hold them."""

from __future__ import annotations

from pathlib import Path

from payflow.contracts.gateway import Role
from payflow.run.records import AccountRecord, CustomerRecord, UserRecord, VerificationRecord

ADA = CustomerRecord(customer_id="c1", name="Ada Lovelace", country="GB")
ADAS_ACCOUNT = AccountRecord(number="A1", customer_id="c1", currency="USD", opening_balance="10.50")
ADA_SIGNS_IN = UserRecord(username="ada", password="long enough", customer_id="c1")
ADA_VERIFIED = VerificationRecord(customer_id="c1")

CSV = """\
type,customer_id,name,country,number,currency,opening_balance,username,role,password
customer,c1,Ada Lovelace,GB,,,,,,
account,c1,,,A1,USD,10.50,,,
user,c1,,,,,,ada,customer,long enough
user,,,,,,,olga,operator,long enough
verification,c1,,,,,,,,
"""

JSON_LINES = """\
{"type":"customer","customer_id":"c1","name":"Ada Lovelace","country":"GB"}

{"type":"account","number":"A1","customer_id":"c1","currency":"USD","opening_balance":"10.50"}
{"type":"user","username":"ada","password":"long enough","customer_id":"c1"}
{"type":"user","username":"olga","role":"operator","password":"long enough"}
{"type":"verification","customer_id":"c1"}
"""

EVERY_KIND = [
    ADA,
    ADAS_ACCOUNT,
    ADA_SIGNS_IN,
    UserRecord(username="olga", role=Role.OPERATOR, password="long enough"),
    ADA_VERIFIED,
]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path
