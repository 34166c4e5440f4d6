"""Signing in, keeping a session open, and signing out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from payflow.contracts.gateway import InvalidCredentials, InvalidToken, TokenRevoked
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.services.gateway.domain.sessions import (
    CLOCK_LEEWAY,
    Identity,
    Lifetimes,
    NewSession,
    RefreshDecision,
    RefreshToken,
    Revocation,
    decide_refresh,
    digest,
    revocation_of_session,
)
from payflow.services.gateway.domain.users import User, is_username, name_key
from payflow.services.gateway.ports import AccessTokens, NewSecret, Passwords, Revocations, Store
from payflow.services.gateway.usecases.events import SecurityEvents

# People type passwords into the wrong field: a name that no user has is never written anywhere.
NOBODY = "unknown"


class SignIn(msgspec.Struct, frozen=True, kw_only=True):
    """A name and a password."""

    username: str
    password: str


class SignedIn(msgspec.Struct, frozen=True, kw_only=True):
    """An open session: a short-lived access token and the refresh token that gets the next one."""

    access_token: str
    refresh_token: str
    expires_in_s: int


class SignOut(msgspec.Struct, frozen=True, kw_only=True):
    """End the session of an access token, and that of a refresh token of the same user where one is given."""

    identity: Identity
    refresh_token: str | None = None


class TokenMaker:
    """Makes what a session's holder gets, at one instant."""

    def __init__(
        self, *, tokens: AccessTokens, ids: Ids, new_secret: NewSecret, lifetimes: Lifetimes, now: datetime
    ) -> None:
        self._tokens, self._ids, self._new_secret = tokens, ids, new_secret
        self.lifetimes, self.now = lifetimes, now

    def new_session(self, user: User) -> tuple[NewSession, str]:
        """A session to open, and its first refresh token."""
        secret = self._new_secret()
        session = NewSession(
            session_id=self._ids.new(),
            user_id=user.user_id,
            opened_at=self.now,
            expires_at=self.now + self.lifetimes.session,
            token_sha256=digest(secret),
        )
        return session, secret

    def new_secret(self) -> str:
        """The next refresh token of a session."""
        return self._new_secret()

    def signed_in(self, user: User, session_id: UUID, refresh_token: str, *, session_expires_at: datetime) -> SignedIn:
        """The pair of tokens for a user in a session; the access token ends with the session at the latest."""
        issued_at = int(self.now.timestamp())
        ends_at = min(issued_at + int(self.lifetimes.access.total_seconds()), int(session_expires_at.timestamp()))
        identity = Identity(
            username=user.username,
            role=user.role,
            customer_id=user.customer_id,
            token_id=self._ids.new().hex,
            session_id=session_id.hex,
            ends_at=ends_at,
        )
        access_token = self._tokens.sign(identity, issued_at=issued_at)
        return SignedIn(access_token=access_token, refresh_token=refresh_token, expires_in_s=ends_at - issued_at)


async def sign_in(
    *,
    attempts: Sequence[SignIn],
    store: Store,
    passwords: Passwords,
    maker: TokenMaker,
    events: SecurityEvents,
    notes_failures: bool = True,
) -> Answers[SignedIn]:
    """Open a session for each right name and password; `notes_failures` tells the event log of the others.

    Items may be InvalidCredentials (also for a disabled user: whether a name exists is not told, and takes as long to
    find out) and Overloaded.
    """
    names = [name_key(attempt.username) for attempt in attempts]
    users = await store.users(sorted({name for name in names if is_username(name)}))
    answers: list[SignedIn | PayflowError] = []
    opening: dict[UUID, tuple[int, User, NewSession]] = {}
    told: list[Event] = []
    for index, (attempt, name) in enumerate(zip(attempts, names, strict=True)):
        user = users.get(name)
        is_right = await _is_right(attempt, user, passwords)
        if isinstance(is_right, PayflowError):
            answers.append(is_right)
        elif user is None or not is_right or not user.is_enabled:
            answers.append(InvalidCredentials())
            if notes_failures:
                told.append(_failure(user, is_right, events))
        else:
            session, refresh_token = maker.new_session(user)
            opening[session.session_id] = (index, user, session)
            answers.append(
                maker.signed_in(user, session.session_id, refresh_token, session_expires_at=session.expires_at)
            )
    if not opening and not told:
        return answers
    async with store.transaction() as transaction:
        opened = await transaction.open_sessions([session for _, _, session in opening.values()])
        for session_id, (index, user, _) in opening.items():
            if session_id in opened:
                told.append(events.make("signed_in", actor=user.username, subject=f"session/{session_id.hex}"))
            else:
                answers[index] = InvalidCredentials()  # disabled while the password was being verified
        await transaction.append_events(told)
    return answers


async def _is_right(attempt: SignIn, user: User | None, passwords: Passwords) -> bool | PayflowError:
    try:
        return await passwords.verify(
            password=attempt.password, password_hash=None if user is None else user.password_hash
        )
    except PayflowError as error:
        return error


def _failure(user: User | None, is_right: bool, events: SecurityEvents) -> Event:
    if user is None:
        return events.failed_attempt(actor=NOBODY, detail="no such user")
    return events.failed_attempt(actor=user.username, detail="user is disabled" if is_right else "wrong password")


async def refresh(
    *,
    refresh_tokens: Sequence[str],
    store: Store,
    revocations: Revocations,
    maker: TokenMaker,
    events: SecurityEvents,
) -> Answers[SignedIn]:
    """Exchange refresh tokens for new pairs; each is good for one exchange.

    Items may be InvalidToken (unknown or expired) and TokenRevoked: the session was ended, or this token was used
    before. Then two hold it, and the whole session ends, its access tokens included, on every gateway.
    """
    digests = [digest(token) for token in refresh_tokens]
    answers: list[SignedIn | PayflowError] = []
    used: list[bytes] = []
    fresh: list[tuple[bytes, UUID]] = []
    reused: list[RefreshToken] = []
    seen: set[bytes] = set()
    number = 0
    revoked: list[Revocation] = []
    async with store.transaction() as transaction:
        known = await transaction.lock_refresh_tokens(digests)
        for token_sha256 in digests:
            token = known.get(token_sha256)
            decision = decide_refresh(token=token, now=maker.now)
            if token is not None and decision is RefreshDecision.ROTATE and token_sha256 in seen:
                decision = RefreshDecision.REUSED
            seen.add(token_sha256)
            if token is None or decision is not RefreshDecision.ROTATE:
                answers.append(_refusal(decision))
                if token is not None and decision is RefreshDecision.REUSED:
                    reused.append(token)
                continue
            secret = maker.new_secret()
            used.append(token_sha256)
            fresh.append((digest(secret), token.session_id))
            answers.append(
                maker.signed_in(token.user, token.session_id, secret, session_expires_at=token.session_expires_at)
            )
        if used:
            await transaction.rotate(used=used, fresh=fresh, now=maker.now)
        if reused:
            ended = await transaction.end_sessions([(t.session_id, "refresh token reused") for t in reused], maker.now)
            revoked = [_revoke_session(session_id, "refresh token reused", maker) for session_id in sorted(ended)]
            number = await transaction.revoke(revoked, maker.now)
            actors = {token.session_id: token.user.username for token in reused}
            await transaction.append_events([_ended("refresh_reused", actors[id], id, events) for id in sorted(ended)])
    if revoked:
        await revocations.publish(revoked, number=number)
    return answers


def _refusal(decision: RefreshDecision) -> PayflowError:
    match decision:
        case RefreshDecision.UNKNOWN:
            return InvalidToken("The refresh token is not known; sign in again.")
        case RefreshDecision.EXPIRED:
            return InvalidToken("The session has expired; sign in again.")
        case _:
            return TokenRevoked("The session has ended; sign in again.")


async def sign_out(
    *,
    commands: Sequence[SignOut],
    store: Store,
    revocations: Revocations,
    maker: TokenMaker,
    events: SecurityEvents,
) -> Answers[None]:
    """Revoke access tokens and end their sessions, on every gateway before the answer is given.

    A refresh token of somebody else, or an unknown one, is passed over: whoever signs out shall be out.
    """
    given = {digest(command.refresh_token) for command in commands if command.refresh_token}
    async with store.transaction() as transaction:
        known = await transaction.lock_refresh_tokens(sorted(given))
        revoked: dict[str, Revocation] = {}
        ending: dict[UUID, str] = {}
        for command in commands:
            identity = command.identity
            revoked[identity.token_id] = Revocation(
                id=identity.token_id,
                ends_at=datetime.fromtimestamp(identity.ends_at, tz=maker.now.tzinfo) + CLOCK_LEEWAY,
                reason="signed out",
            )
            ending[UUID(identity.session_id)] = identity.username
            token = known.get(digest(command.refresh_token)) if command.refresh_token else None
            if token is not None and token.user.username == identity.username:
                ending[token.session_id] = identity.username
        for session_id in ending:
            revoked[session_id.hex] = _revoke_session(session_id, "signed out", maker)
        ended = await transaction.end_sessions([(id, "signed out") for id in sorted(ending)], maker.now)
        number = await transaction.revoke(list(revoked.values()), maker.now)
        await transaction.append_events([_ended("signed_out", ending[id], id, events) for id in sorted(ended)])
    await revocations.publish(list(revoked.values()), number=number)
    return [None for _ in commands]


def _revoke_session(session_id: UUID, reason: str, maker: TokenMaker) -> Revocation:
    return revocation_of_session(session_id=session_id, reason=reason, lifetimes=maker.lifetimes, now=maker.now)


def _ended(name: str, username: str, session_id: UUID, events: SecurityEvents) -> Event:
    return events.make(name, actor=username, subject=f"session/{session_id.hex}", version=2)
