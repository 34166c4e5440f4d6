"""A gateway with everything behind it in memory."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from payflow.contracts.account import Account
from payflow.contracts.bulk import Bulk
from payflow.contracts.confirm import Confirm
from payflow.contracts.gateway import Gateway, NewUser, Role
from payflow.contracts.partner_bank import PartnerBank
from payflow.kernel.clock import Clock
from payflow.kernel.errors import PayflowError
from payflow.platform.clock import SystemClock
from payflow.platform.http.edge import EdgeLayer
from payflow.platform.ids import UuidV7
from payflow.platform.rpc import in_process
from payflow.platform.valkey import connect_valkey
from payflow.services.gateway.addresses import ClientAddresses, read_networks
from payflow.services.gateway.api import FAILURES_NOTED, GatewayApi, Parts
from payflow.services.gateway.app import BOUNDS_OWN_BODY, GatewaySettings, public_app
from payflow.services.gateway.domain.limits import Limit
from payflow.services.gateway.domain.sessions import Lifetimes
from payflow.services.gateway.gate import Gate, Limits
from payflow.services.gateway.guard import VALKEY_TIMEOUT_S, Guard
from payflow.services.gateway.keys import FileKeyRing
from payflow.services.gateway.passwords import ArgonPasswords
from payflow.services.gateway.ports import Store
from payflow.services.gateway.routes.services import Services
from payflow.services.gateway.tokens import JwtAccessTokens
from tests.fakes_bulk import FakeBulk
from tests.fakes_gateway.client import Client
from tests.fakes_gateway.services import FakeAccount, FakeConfirm, FakeSides
from tests.fakes_gateway.store import FakeGatewayStore
from tests.shared_routes import shared_routes

NOWHERE = "unix:///nonexistent/valkey.sock"


class FakePasswords:
    """Passwords that cost nothing: the hash is the password behind a mark. Counts verifications."""

    def __init__(self) -> None:
        self.verified = 0

    async def hash(self, password: str) -> str:
        return f"$argon2id${password}"

    async def verify(self, *, password: str, password_hash: str | None) -> bool:
        self.verified += 1
        return password_hash == f"$argon2id${password}"


GENEROUS = Limits(
    per_ip=Limit("ip", 10_000, 900),
    per_user=Limit("user", 10_000, 900),
    login_per_ip=Limit("login", 10_000, 900),
    callbacks_per_ip=Limit("callbacks", 10_000, 900),
)
HOUR_AND_DAY = Lifetimes(access=timedelta(hours=1), session=timedelta(days=1))


class GatewayWorld:
    """A gateway with everything behind it in memory; `store` and `valkey_url` may be real."""

    def __init__(
        self,
        keys_dir: Path,
        *,
        store: Store | None = None,
        valkey_url: str = NOWHERE,
        generation: str | None = None,
        limits: Limits = GENEROUS,
        trusted_proxies: str = "",
        confirm: FakeConfirm | None = None,
        real_passwords: bool = False,
        failures_noted: Limit = FAILURES_NOTED,
        look_every_s: float = 0.05,
        valkey_timeout_s: float = VALKEY_TIMEOUT_S,
        lifetimes: Lifetimes = HOUR_AND_DAY,
        clock: Clock | None = None,
    ) -> None:
        self.store: Any = store or FakeGatewayStore()
        self.valkey = connect_valkey(valkey_url)
        self.clock = clock or SystemClock()
        self.passwords: Any = ArgonPasswords() if real_passwords else FakePasswords()
        self.lifetimes = lifetimes
        self.keys = FileKeyRing.open(keys_dir, token_lifetime=self.lifetimes.access, now=self.clock.now())
        self.tokens = JwtAccessTokens(keys=self.keys, issuer="payflow", audience="payflow-api", now=time.time)
        self.guard = Guard(
            valkey=self.valkey,
            store=self.store,
            generation=generation or uuid4().hex,
            now=self.clock.now,
            look_every_s=look_every_s,
            valkey_timeout_s=valkey_timeout_s,
        )
        self.secrets = 0
        self.api = GatewayApi(
            Parts(
                store=self.store,
                passwords=self.passwords,
                tokens=self.tokens,
                revocations=self.guard,
                keys=self.keys,
                lifetimes=self.lifetimes,
                clock=self.clock,
                ids=UuidV7(),
                new_secret=lambda: uuid4().hex + uuid4().hex,
            ),
            failures_noted=failures_noted,
        )
        self.cli: Gateway = in_process(Gateway, self.api, caller="cli")
        self.confirm = confirm or FakeConfirm()
        self.account = FakeAccount()
        self.bank = FakeSides()
        self.bulk = FakeBulk(self.clock)
        self.gate = Gate(
            tokens=self.tokens,
            guard=self.guard,
            limits=limits,
            addresses=ClientAddresses(read_networks(trusted_proxies)),
        )
        services = Services(
            confirm=in_process(Confirm, self.confirm, caller="gateway"),
            account=in_process(Account, self.account, caller="gateway"),
            gateway=self.api,
            gate=self.gate,
            others={
                Bulk: in_process(Bulk, self.bulk, caller="gateway"),
                PartnerBank: in_process(PartnerBank, self.bank, caller="gateway"),
            },
        )
        self.serve(services, GatewaySettings(token_keys_dir=str(keys_dir), bank_wait_s=2.0))

    def serve(self, services: Services, settings: GatewaySettings) -> None:
        """Answer requests with these services."""
        app = public_app(settings=settings, gate=self.gate, services=services, keys=self.keys, routes_of=shared_routes)
        self.app = EdgeLayer(app, service="gateway", public=True, bounds_own_body=BOUNDS_OWN_BODY)
        self.client = Client(self.app)

    async def user(
        self,
        username: str = "demo",
        *,
        role: Role = Role.CUSTOMER,
        customer_id: str | None = None,
        password: str = "password123",
    ) -> None:
        """A user who can sign in; a customer is cust_001 unless said otherwise."""
        command = NewUser(
            username=username,
            role=role,
            password=password,
            customer_id=customer_id or ("cust_001" if role is Role.CUSTOMER else None),
        )
        (made,) = await self.cli.create_users([command])
        assert not isinstance(made, PayflowError), made

    async def sign_in(self, username: str = "demo", password: str = "password123") -> Any:
        """The tokens of a new session."""
        reply = await self.client.send("POST", "/auth/login", body={"username": username, "password": password})
        assert reply.status == 200, reply.body
        return reply.json

    async def token(self, username: str = "demo", **changes: Any) -> str:
        """The access token of a user made for it."""
        await self.user(username, **changes)
        token: str = (await self.sign_in(username))["access_token"]
        return token
