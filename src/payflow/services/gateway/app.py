"""Reads the gateway's settings and wires it: the public API, and the private operations of the command line."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, Final, cast

import msgspec

from payflow.contracts.account import Account
from payflow.contracts.bulk import Bulk
from payflow.contracts.confirm import Confirm
from payflow.contracts.gateway import DEMO_PASSWORD, DEMO_USERNAMES, Gateway
from payflow.platform.http.admission import Admission
from payflow.platform.http.asgi import ASGIApp
from payflow.platform.service import Runtime, Service, every
from payflow.platform.settings import CommonSettings, Rate, SettingsError, describe
from payflow.platform.valkey import Valkey
from payflow.services.gateway.addresses import ClientAddresses, read_networks
from payflow.services.gateway.api import GatewayApi, Parts
from payflow.services.gateway.domain.limits import Limit
from payflow.services.gateway.domain.sessions import Lifetimes
from payflow.services.gateway.domain.users import check_password
from payflow.services.gateway.freshness import Freshness, LastWrites, NoReplica
from payflow.services.gateway.gate import CALLBACK_PATHS, Gate, Limits
from payflow.services.gateway.guard import Guard
from payflow.services.gateway.health import ServiceProbes
from payflow.services.gateway.keys import FileKeyRing
from payflow.services.gateway.passwords import ArgonPasswords
from payflow.services.gateway.ports import Store
from payflow.services.gateway.public import PublicApp
from payflow.services.gateway.routes import make_routes
from payflow.services.gateway.routes.answers import CONFIRM_PATH
from payflow.services.gateway.routes.bulk import BULK_PATH
from payflow.services.gateway.routes.bulk_upload import BulkUploadRoute
from payflow.services.gateway.routes.payment_confirm import ConfirmRoute
from payflow.services.gateway.routes.services import OTHER_CONTRACTS, Services
from payflow.services.gateway.store import PostgresStore
from payflow.services.gateway.tokens import JwtAccessTokens

# Without these no payment can be made; the others are reported.
REQUIRED: Final = ("postgres", "confirm", "account", "risk")
REPORTED: Final = ("notification", "otp", "audit", "ofac", "kyc", "partner_bank")
BOUNDS_OWN_BODY: Final = frozenset({BULK_PATH, *CALLBACK_PATHS})
# Longer than any access token lives: who disables a user finds every session that may have one left.
_KEPT_AFTER_END: Final = timedelta(days=2)


class GatewaySettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the gateway."""

    token_keys_dir: Annotated[str, describe("folder with the keys that sign access tokens, shared by all gateways")]
    jwt_issuer: Annotated[str, describe("`iss` of access tokens")] = "payflow"
    jwt_audience: Annotated[str, describe("`aud` of access tokens")] = "payflow-api"
    access_token_s: Annotated[int, describe("seconds that an access token lives"), msgspec.Meta(ge=60, le=86400)] = 3600
    session_s: Annotated[int, describe("seconds after sign-in that a session can be renewed"), msgspec.Meta(ge=60)] = (
        86400
    )
    rate_limit_per_ip: Annotated[Rate, describe("public requests of one address")] = Rate(100, 900)
    rate_limit_per_user: Annotated[Rate, describe("public requests of one signed-in user")] = Rate(10000, 900)
    rate_limit_login_per_ip: Annotated[Rate, describe("sign-ins tried from one address")] = Rate(60, 900)
    rate_limit_callbacks_per_ip: Annotated[
        Rate, describe("callbacks of one address of a vendor's, which tells of many messages")
    ] = Rate(20000, 900)
    trusted_proxies: Annotated[
        str,
        describe(
            "networks of proxies whose X-Forwarded-For is believed, comma-separated; none by default",
            check=read_networks,
        ),
    ] = ""
    bootstrap_admin_password: Annotated[
        str, describe("password of user `admin`, made when there is no user at all; best given as _FILE")
    ] = ""
    public_requests_max: Annotated[int, describe("public requests worked on at once"), msgspec.Meta(ge=1)] = 512
    # A request that waits and is then refused has cost ten times one that is refused at the connection.
    public_queue_max: Annotated[int, describe("public requests that wait for their turn"), msgspec.Meta(ge=0)] = 0
    public_queue_wait_s: Annotated[
        float, describe("seconds that one waits at most before it is refused"), msgspec.Meta(gt=0, le=10)
    ] = 0.05
    bulk_chunk_items: Annotated[
        int, describe("payments of a file that are stored, and later begun, together"), msgspec.Meta(ge=1, le=500)
    ] = 250
    bank_wait_s: Annotated[
        float,
        describe("seconds that an inter-bank payment waits for the other bank, its place given to the next request"),
    ] = 2.0


SETTINGS = GatewaySettings


async def build(runtime: Runtime) -> Service:
    """Wire the gateway."""
    settings = runtime.settings(GatewaySettings)
    addresses = _addresses(settings)
    database = await runtime.database()
    store = PostgresStore(database=database, outbox=runtime.outbox(database))
    valkey = runtime.valkey()
    generation = await store.generation()
    guard = Guard(valkey=valkey, store=store, generation=generation.hex, now=runtime.clock.now)
    await guard.look()
    api, keys, tokens = _api(runtime, settings, store, guard)
    if settings.env == "production":
        await _refuse_demo_users(settings, api)
    await _bootstrap(settings, api)
    gate = Gate(tokens=tokens, guard=guard, limits=_limits(settings), addresses=addresses)
    freshness = _freshness(runtime, valkey, generation.hex)
    services = Services(
        confirm=runtime.client(Confirm),
        account=runtime.client(Account),
        gateway=api,
        gate=gate,
        freshness=freshness or NoReplica(),
        others={contract: runtime.client(contract) for contract in OTHER_CONTRACTS},
    )
    probes = ServiceProbes()
    runtime.on_close(probes.close)
    checks = dict(runtime.checks_for(database=database, valkey=valkey))
    for name in (*REQUIRED[1:], *REPORTED):
        checks[name] = probes.check_of(settings.url_of(name))
    admission = Admission(
        settings.public_requests_max,
        settings.public_queue_max,
        name="public",
        queue_wait_max_s=settings.public_queue_wait_s,
    )
    return Service(
        is_public=True,
        app=admission.wrap(public_app(settings=settings, gate=gate, services=services, keys=keys, freshness=freshness)),
        is_full=admission.is_full,
        implementations=[(Gateway, api)],
        checks=checks,
        required=set(REQUIRED),
        bounds_own_body=BOUNDS_OWN_BODY,
        background={
            "revocations": guard.look_always,
            "signing_keys": every(1.0, _keep_keys(keys, runtime)),
            "forget": every(600.0, _forget(store, runtime)),
        },
    )


def _freshness(runtime: Runtime, valkey: Valkey, generation: str) -> LastWrites | None:
    """Who wrote when, where lists may come from a replica; None where there is none: nothing is then kept."""
    common = runtime.common
    if not common.postgres_replica_url:
        return None
    return LastWrites(
        valkey=valkey, generation=generation, clock=runtime.clock, keep_s=common.postgres_replica_lag_max_s
    )


def public_app(
    *,
    settings: GatewaySettings,
    gate: Gate,
    services: Services,
    keys: FileKeyRing,
    freshness: Freshness | None = None,
    routes_of: Callable[..., Any] = make_routes,
) -> ASGIApp:
    """The public API. `freshness` None: nobody notes who changes something. `routes_of` makes the framework's part."""
    confirm = ConfirmRoute(confirm=services.confirm, bank_wait_s=settings.bank_wait_s)
    # Litestar's own types for an ASGI application are narrower, and say the same.
    routes = cast(ASGIApp, routes_of(services=services, keys=keys))
    upload = BulkUploadRoute(bulk=services.client(Bulk), others=routes, chunk_items=settings.bulk_chunk_items)
    return PublicApp(gate=gate, hot={CONFIRM_PATH: confirm, BULK_PATH: upload}, routes=routes, freshness=freshness)


def _api(
    runtime: Runtime, settings: GatewaySettings, store: PostgresStore, guard: Guard
) -> tuple[GatewayApi, FileKeyRing, JwtAccessTokens]:
    lifetimes = Lifetimes(
        access=timedelta(seconds=settings.access_token_s), session=timedelta(seconds=settings.session_s)
    )
    keys = FileKeyRing.open(settings.token_keys_dir, token_lifetime=lifetimes.access, now=runtime.clock.now())
    tokens = JwtAccessTokens(
        keys=keys,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        now=lambda: runtime.clock.now().timestamp(),
    )
    passwords = ArgonPasswords()
    runtime.on_close(passwords.close)
    parts = Parts(
        store=store,
        passwords=passwords,
        tokens=tokens,
        revocations=guard,
        keys=keys,
        lifetimes=lifetimes,
        clock=runtime.clock,
        ids=runtime.ids,
        new_secret=lambda: secrets.token_urlsafe(32),
    )
    return GatewayApi(parts), keys, tokens


async def _refuse_demo_users(settings: GatewaySettings, api: GatewayApi) -> None:
    """Raises SettingsError where somebody could sign in with the password that everybody knows."""
    if settings.bootstrap_admin_password == DEMO_PASSWORD:
        raise SettingsError("PAYFLOW_BOOTSTRAP_ADMIN_PASSWORD: the demo password is public; choose another.")
    found = await api.users_with_password(list(DEMO_USERNAMES), DEMO_PASSWORD)
    if found:
        raise SettingsError(
            f"PAYFLOW_ENV=production: the database has demo users with their public password ({', '.join(found)}); "
            "disable them, or use another database."
        )


async def _bootstrap(settings: GatewaySettings, api: GatewayApi) -> None:
    password = settings.bootstrap_admin_password
    if not password:
        return
    refusal = check_password(password)
    if refusal is not None:
        raise SettingsError(f"PAYFLOW_BOOTSTRAP_ADMIN_PASSWORD: {refusal.detail}")
    await api.bootstrap_admin(password)


def _addresses(settings: GatewaySettings) -> ClientAddresses:
    try:
        return ClientAddresses(read_networks(settings.trusted_proxies))
    except ValueError as error:
        raise SettingsError(f"PAYFLOW_TRUSTED_PROXIES: {error}") from None


def _limits(settings: GatewaySettings) -> Limits:
    def limit(name: str, rate: Rate) -> Limit:
        return Limit(name, rate.count, rate.window_s)

    return Limits(
        per_ip=limit("ip", settings.rate_limit_per_ip),
        per_user=limit("user", settings.rate_limit_per_user),
        login_per_ip=limit("login", settings.rate_limit_login_per_ip),
        callbacks_per_ip=limit("callbacks", settings.rate_limit_callbacks_per_ip),
    )


def _keep_keys(keys: FileKeyRing, runtime: Runtime) -> Callable[[], Awaitable[None]]:
    async def keep() -> None:
        keys.reload_if_changed()
        keys.retire_old(runtime.clock.now())

    return keep


def _forget(store: Store, runtime: Runtime) -> Callable[[], Awaitable[None]]:
    async def forget() -> None:
        now = runtime.clock.now()
        await store.forget(revoked_before=now, expired_before=now - _KEPT_AFTER_END)

    return forget
