"""Adapts the private contract and the public routes to the use cases: wires store, keys, clock and ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from payflow.contracts.gateway import InvalidCredentials, KeysRotated, NewUser, RotateKeys, UserView
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import PayflowError
from payflow.platform.context import current_traceparent
from payflow.services.gateway.domain.limits import Limit, SlidingCounters
from payflow.services.gateway.domain.sessions import Lifetimes
from payflow.services.gateway.ports import AccessTokens, KeyRing, Passwords, Revocations, Store
from payflow.services.gateway.usecases import keys, sessions, users
from payflow.services.gateway.usecases.events import SecurityEvents
from payflow.services.gateway.usecases.sessions import SignedIn, SignIn, SignOut, TokenMaker
from payflow.services.gateway.usecases.users import SetEnabled

# Failed sign-ins written to the event log, per process: whoever guesses passwords must not be able to fill it.
FAILURES_NOTED: Final = Limit("failed sign-ins", 600, 60)
COMMAND_LINE: Final = "cli"
_sign_ins: Final = Counter("payflow_sign_ins_total", "Sign-ins tried: signed_in, or the error's code.", ["outcome"])


@dataclass(frozen=True)
class Parts:
    """What the use cases work with."""

    store: Store
    passwords: Passwords
    tokens: AccessTokens
    revocations: Revocations
    keys: KeyRing
    lifetimes: Lifetimes
    clock: Clock
    ids: Ids
    new_secret: Callable[[], str]


class GatewayApi:
    """Implements contracts.gateway.Gateway, and what the public routes do with users and sessions."""

    def __init__(self, parts: Parts, *, failures_noted: Limit = FAILURES_NOTED) -> None:
        self._parts = parts
        self._failures_noted = failures_noted
        self._failures = SlidingCounters()
        self._notes_failures = True

    async def create_users(self, commands: list[NewUser]) -> Answers[UserView]:
        return await self.create_users_as(commands, created_by=COMMAND_LINE)

    async def rotate_keys(self, commands: list[RotateKeys]) -> Answers[KeysRotated]:
        parts = self._parts
        return await keys.rotate_keys(
            commands=commands,
            keys=parts.keys,
            store=parts.store,
            events=self._events(),
            now=parts.clock.now(),
            rotated_by=COMMAND_LINE,
        )

    async def create_users_as(self, commands: list[NewUser], *, created_by: str) -> Answers[UserView]:
        """Make users in an administrator's name (see usecases.users.create_users)."""
        parts = self._parts
        return await users.create_users(
            commands=commands,
            store=parts.store,
            passwords=parts.passwords,
            ids=parts.ids,
            events=self._events(),
            now=parts.clock.now(),
            created_by=created_by,
        )

    async def bootstrap_admin(self, password: str) -> bool:
        """Make the first administrator where there is no user (see usecases.users.bootstrap_admin)."""
        parts = self._parts
        return await users.bootstrap_admin(
            password=password,
            store=parts.store,
            passwords=parts.passwords,
            ids=parts.ids,
            events=self._events(),
            now=parts.clock.now(),
        )

    async def users_with_password(self, usernames: list[str], password: str) -> list[str]:
        """Those of these users who may sign in with this password."""
        return await users.users_with_password(
            usernames=usernames, password=password, store=self._parts.store, passwords=self._parts.passwords
        )

    async def list_users(self, *, after: str | None, limit: int) -> tuple[list[UserView], str | None]:
        """A page of users, and the name to go on after."""
        return await users.list_users(after=after, limit=limit, store=self._parts.store)

    async def set_enabled(self, commands: list[SetEnabled]) -> Answers[UserView]:
        """Let users sign in, or end all they have (see usecases.users.set_enabled)."""
        parts = self._parts
        return await users.set_enabled(
            commands=commands,
            store=parts.store,
            revocations=parts.revocations,
            lifetimes=parts.lifetimes,
            events=self._events(),
            now=parts.clock.now(),
        )

    async def sign_in(self, attempts: list[SignIn]) -> Answers[SignedIn]:
        """Open sessions (see usecases.sessions.sign_in)."""
        parts = self._parts
        answers = await sessions.sign_in(
            attempts=attempts,
            store=parts.store,
            passwords=parts.passwords,
            maker=self._maker(),
            events=self._events(),
            notes_failures=self._notes_failures,
        )
        for answer in answers:
            _sign_ins.labels(answer.code if isinstance(answer, PayflowError) else "signed_in").inc()
            if isinstance(answer, InvalidCredentials):
                now = parts.clock.now().timestamp()
                self._notes_failures = self._failures.take(key="", limit=self._failures_noted, now=now).is_allowed
        return answers

    async def refresh(self, refresh_tokens: list[str]) -> Answers[SignedIn]:
        """Exchange refresh tokens (see usecases.sessions.refresh)."""
        parts = self._parts
        return await sessions.refresh(
            refresh_tokens=refresh_tokens,
            store=parts.store,
            revocations=parts.revocations,
            maker=self._maker(),
            events=self._events(),
        )

    async def sign_out(self, commands: list[SignOut]) -> Answers[None]:
        """End sessions (see usecases.sessions.sign_out)."""
        parts = self._parts
        return await sessions.sign_out(
            commands=commands,
            store=parts.store,
            revocations=parts.revocations,
            maker=self._maker(),
            events=self._events(),
        )

    def _maker(self) -> TokenMaker:
        parts = self._parts
        return TokenMaker(
            tokens=parts.tokens,
            ids=parts.ids,
            new_secret=parts.new_secret,
            lifetimes=parts.lifetimes,
            now=parts.clock.now(),
        )

    def _events(self) -> SecurityEvents:
        parts = self._parts
        return SecurityEvents(ids=parts.ids, now=parts.clock.now(), traceparent=current_traceparent.get())
