"""The check before every public request: from which address, by whom, and whether there may be one more."""

from __future__ import annotations

from typing import Final, NamedTuple

from prometheus_client import Counter

from payflow.contracts.gateway import AccessTokenRequired, InvalidToken, RateLimited, TokenRevoked
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.platform.http.asgi import Headers, Scope
from payflow.services.gateway.addresses import ClientAddresses
from payflow.services.gateway.domain.limits import Limit, Standing
from payflow.services.gateway.domain.sessions import Identity
from payflow.services.gateway.guard import Ask, Guard, Verdict
from payflow.services.gateway.tokens import JwtAccessTokens

SIGN_IN_PATH: Final = "/auth/login"
TWILIO_CALLBACK_PATH: Final = "/callbacks/twilio"
SENDGRID_CALLBACK_PATH: Final = "/callbacks/sendgrid"
CALLBACK_PATHS: Final = frozenset({TWILIO_CALLBACK_PATH, SENDGRID_CALLBACK_PATH})
_BEARER: Final = b"bearer "
_limited: Final = Counter("payflow_rate_limited_total", "Requests refused by a limit.", ["limit"])


class Limits(NamedTuple):
    """The limits of public requests."""

    per_ip: Limit
    per_user: Limit
    login_per_ip: Limit
    callbacks_per_ip: Limit


class Admitted(NamedTuple):
    """A request that may go on. `identity` is who sent it, or why that is not known; `headers` tell the limits."""

    identity: Identity | PayflowError
    headers: Headers


class LimitExceeded(RateLimited):
    """A limit is used up; carries the header fields that say so."""

    def __init__(self, *, limit: Limit, retry_after_s: int, headers: Headers) -> None:
        super().__init__(
            f"More than {limit.count} requests in {limit.window_s} seconds; wait {retry_after_s} seconds.",
            retry_after_s=retry_after_s,
        )
        self.headers = headers


class Gate:
    """Counts every public request and finds out who sent it."""

    def __init__(self, *, tokens: JwtAccessTokens, guard: Guard, limits: Limits, addresses: ClientAddresses) -> None:
        self._tokens = tokens
        self._guard = guard
        self._limits = limits
        self._addresses = addresses

    async def admit(self, scope: Scope) -> Admitted:
        """Count the request. Raises LimitExceeded, and Unavailable when nobody can tell whether a token is revoked.

        A token seen before is checked in the same round trip; a new one only after its address was counted, so that
        a flood of forged tokens costs no signature check each.
        """
        counters = self._ip_counters(scope)
        token = _bearer_token(scope)
        if isinstance(token, PayflowError):
            return Admitted(token, await self._count(counters))
        identity = self._tokens.known(token)
        if identity is None:
            headers = await self._count(counters)
            try:
                identity = self._tokens.verify(token)
            except InvalidToken as error:
                return Admitted(error, headers)
            counters = ()
        counters += ((f"user:{identity.username}", self._limits.per_user),)
        verdict = await self._guard.ask(Ask(counters, (identity.token_id, identity.session_id)))
        headers = _headers_of(counters, verdict)
        if verdict.is_revoked:
            return Admitted(TokenRevoked(), headers)
        return Admitted(identity, headers)

    async def is_over(self, identity: Identity) -> bool:
        """Whether a token has ended, or was revoked, since its request was admitted. True also when nobody can tell."""
        if self._tokens.has_ended(identity):
            return True
        try:
            verdict = await self._guard.ask(Ask((), (identity.token_id, identity.session_id)))
        except Unavailable:
            return True
        return verdict.is_revoked

    def _ip_counters(self, scope: Scope) -> tuple[tuple[str, Limit], ...]:
        address = self._addresses.key_of(scope)
        if scope["path"] in CALLBACK_PATHS and scope["method"] == "POST":
            # Few addresses call for everybody's messages: a person's limit would shut them out.
            return ((f"callbacks:{address}", self._limits.callbacks_per_ip),)
        counters: tuple[tuple[str, Limit], ...] = ((f"ip:{address}", self._limits.per_ip),)
        if scope["path"] == SIGN_IN_PATH and scope["method"] == "POST":
            counters += ((f"login:{address}", self._limits.login_per_ip),)
        return counters

    async def _count(self, counters: tuple[tuple[str, Limit], ...]) -> Headers:
        return _headers_of(counters, await self._guard.ask(Ask(counters, ())))


def _bearer_token(scope: Scope) -> bytes | PayflowError:
    found: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if found is not None:
                return InvalidToken()
            found = value
    if found is None:
        return AccessTokenRequired()
    if found[:7].lower() != _BEARER:
        return AccessTokenRequired()
    token = found[7:].strip()
    return token or AccessTokenRequired()


def _headers_of(counters: tuple[tuple[str, Limit], ...], verdict: Verdict) -> Headers:
    """The RateLimit header fields. Raises LimitExceeded for the counter that takes longest to have room again."""
    refused: tuple[Limit, Standing] | None = None
    tightest, fewest = counters[0][1], verdict.standings[0]
    for (_, limit), standing in zip(counters, verdict.standings, strict=True):
        if standing.remaining < fewest.remaining:
            tightest, fewest = limit, standing
        if not standing.is_allowed and (refused is None or standing.retry_after_s > refused[1].retry_after_s):
            refused = (limit, standing)
    if refused is not None:
        tightest, fewest = refused
    headers = _ratelimit_fields(tightest, fewest)
    if refused is not None:
        _limited.labels(tightest.name).inc()
        raise LimitExceeded(limit=tightest, retry_after_s=max(1, fewest.retry_after_s), headers=headers)
    return headers


def _ratelimit_fields(limit: Limit, standing: Standing) -> Headers:
    """The fields of the IETF draft in its present form (RateLimit-Policy, RateLimit), and those of its earlier form
    that most clients read. `t`: seconds until the quota is whole again, or until the next request when it is empty."""
    name, remaining = limit.name, standing.remaining
    wait_s = standing.reset_s if standing.is_allowed else max(1, standing.retry_after_s)
    return [
        (b"ratelimit-policy", b'"%s";q=%d;w=%d' % (name.encode(), limit.count, limit.window_s)),
        (b"ratelimit", b'"%s";r=%d;t=%d' % (name.encode(), remaining, wait_s)),
        (b"ratelimit-limit", b"%d" % limit.count),
        (b"ratelimit-remaining", b"%d" % remaining),
        (b"ratelimit-reset", b"%d" % wait_s),
    ]
