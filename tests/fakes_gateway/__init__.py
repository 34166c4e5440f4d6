"""The gateway's ports in memory, the services behind it as far as it asks them, and a client of its public side."""

from tests.fakes_gateway.client import Client, Reply, a_payment_body
from tests.fakes_gateway.services import FakeConfirm, FakeSides, a_payment
from tests.fakes_gateway.store import FakeGatewayStore
from tests.fakes_gateway.world import GENEROUS, NOWHERE, FakePasswords, GatewayWorld

__all__ = [
    "GENEROUS",
    "NOWHERE",
    "Client",
    "FakeConfirm",
    "FakeGatewayStore",
    "FakePasswords",
    "FakeSides",
    "GatewayWorld",
    "Reply",
    "a_payment",
    "a_payment_body",
]
