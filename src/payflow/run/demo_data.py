"""The demo data of a first start: customers, accounts and users to try things with. No payments: velocity counts."""

from __future__ import annotations

import secrets
from typing import Final

from payflow.contracts.gateway import DEMO_PASSWORD, DEMO_USERNAMES, Role
from payflow.run.datadir import write_atomically
from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.loading import load_records
from payflow.run.local_rpc import local_services
from payflow.run.records import AccountRecord, CustomerRecord, Record, UserRecord, VerificationRecord
from payflow.run.secrets import admin_password_file

# A name on the bundled snapshot of the sanctions lists, so that its payments go under review.
LISTED_NAME: Final = "Rafael Caro Quintero"
OPERATOR_ROLES: Final = (Role.OPERATOR, Role.COMPLIANCE, Role.AUDITOR)

_CUSTOMERS: Final = (
    ("cust_001", "Ada Lovelace", "GB", True),
    ("cust_002", "Grace Hopper", "US", True),
    ("cust_003", "Alan Turing", "GB", False),
    ("cust_004", LISTED_NAME, "MX", True),
)
_ACCOUNTS: Final = (
    ("ACC001", "cust_001", "USD", "1000000.00"),
    ("ACC002", "cust_002", "USD", "8500.00"),
    ("ACC003", "cust_003", "USD", "5000.00"),
    ("ACC004", "cust_004", "USD", "5000.00"),
    ("ACC001-EUR", "cust_001", "EUR", "50000.00"),
    ("ACC001-JPY", "cust_001", "JPY", "5000000"),
    ("ACC002-EUR", "cust_002", "EUR", "2500.00"),
    ("ACC002-JPY", "cust_002", "JPY", "250000"),
)


def demo_records() -> list[Record]:
    """The demo customers with their logins, accounts and verifications."""
    records: list[Record] = []
    for username, (customer_id, name, country, is_verified) in zip(DEMO_USERNAMES, _CUSTOMERS, strict=True):
        email = f"{username}@example.org"
        records.append(CustomerRecord(customer_id=customer_id, name=name, country=country, email=email))
        records.append(UserRecord(username=username, password=DEMO_PASSWORD, customer_id=customer_id))
        if is_verified:
            records.append(VerificationRecord(customer_id=customer_id, reason="demo data"))
    for number, customer_id, currency, balance in _ACCOUNTS:
        records.append(
            AccountRecord(number=number, customer_id=customer_id, currency=currency, opening_balance=balance)
        )
    return records


def operator_records() -> list[UserRecord]:
    """One user per operator role, named after it, with a generated password. The role admin has its own first user."""
    return [UserRecord(username=role.value, role=role, password=secrets.token_urlsafe(12)) for role in OPERATOR_ROLES]


async def load(instance: Instance) -> None:
    """Load the demo data and write the operators' passwords to `instance.operators_file` (mode 0600).

    Safe to repeat after a start that was broken off. Raises StartError naming what could not be loaded.
    """
    operators = _read_operators(instance) or operator_records()
    # Written first: a start broken off after the users were made must not lose their passwords.
    _write_operators(instance, operators)
    async with local_services(instance) as services:
        report = await load_records(records=[*demo_records(), *operators], services=services, loaded_by="demo data")
    if report.failures:
        raise StartError(f"The demo data is not complete: {'; '.join(report.failures[:3])}.")


def _write_operators(instance: Instance, operators: list[UserRecord]) -> None:
    lines = [f"{user.username} {user.password}" for user in operators]
    lines.append(f"admin {admin_password_file(instance).read_text().strip()}")
    write_atomically(instance.operators_file, "\n".join(lines) + "\n")


def _read_operators(instance: Instance) -> list[UserRecord]:
    if not instance.operators_file.exists():
        return []
    pairs = dict(line.split(" ", 1) for line in instance.operators_file.read_text().splitlines() if " " in line)
    return [
        UserRecord(username=role.value, role=role, password=pairs[role.value])
        for role in OPERATOR_ROLES
        if role.value in pairs
    ]
