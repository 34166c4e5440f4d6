"""Users are made, listed, and kept out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import msgspec

from payflow.contracts.gateway import NewUser, Role, UserExists, UserNotFound, UserView
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Ids
from payflow.kernel.errors import PayflowError
from payflow.services.gateway.domain.sessions import (
    Lifetimes,
    Revocation,
    revocation_of_session,
    sessions_with_tokens_expire_after,
)
from payflow.services.gateway.domain.users import User, check_new_user, name_key
from payflow.services.gateway.ports import Passwords, Revocations, Store
from payflow.services.gateway.usecases.events import SecurityEvents

# As many as there are threads that hash: more would only fill the queue that sign-ins wait in.
_HASHED_AT_ONCE = 2
BOOTSTRAP_ADMIN = "admin"


class SetEnabled(msgspec.Struct, frozen=True, kw_only=True):
    """Let a user sign in, or not; `changed_by` is the administrator's name."""

    username: str
    is_enabled: bool
    changed_by: str


async def create_users(
    *,
    commands: Sequence[NewUser],
    store: Store,
    passwords: Passwords,
    ids: Ids,
    events: SecurityEvents,
    now: datetime,
    created_by: str,
) -> Answers[UserView]:
    """Make users. A repeat with the same contents, password included, gets the user; other contents are UserExists.

    Items may be VALIDATION_FAILED, UserExists, Overloaded.
    """
    refusals = [check_new_user(command) for command in commands]
    accepted = [command for command, refusal in zip(commands, refusals, strict=True) if refusal is None]
    names = sorted({name_key(command.username) for command in accepted})
    known = await store.users(names)
    made = await _make_users([c for c in accepted if name_key(c.username) not in known], passwords, ids, now)
    users = [user for user in made.values() if isinstance(user, User)]
    if users:
        async with store.transaction() as transaction:
            inserted = await transaction.insert_users(users)
            await transaction.append_events(
                [
                    events.make("user_created", actor=created_by, subject=f"user/{user.username}", detail=user.role)
                    for user in users
                    if user.user_id in inserted
                ]
            )
        known = await store.users(names)

    async def answer(command: NewUser) -> UserView | PayflowError:
        mine = made.get(name_key(command.username))
        if isinstance(mine, PayflowError):
            return mine
        user = known[name_key(command.username)]
        return await _as_wanted(user, command, passwords)

    return [refusal or await answer(command) for command, refusal in zip(commands, refusals, strict=True)]


async def _make_users(
    commands: Sequence[NewUser], passwords: Passwords, ids: Ids, now: datetime
) -> dict[str, User | PayflowError]:
    """A user to store for each name; of two commands for one name, the first."""
    turns = asyncio.Semaphore(_HASHED_AT_ONCE)

    async def make(command: NewUser) -> User | PayflowError:
        try:
            async with turns:
                hashed = command.password_hash or await passwords.hash(command.password or "")
        except PayflowError as error:
            return error
        return User(
            user_id=ids.new(),
            username=command.username,
            role=command.role,
            customer_id=command.customer_id,
            password_hash=hashed,
            is_enabled=True,
            created_at=now,
        )

    first = {name_key(command.username): command for command in reversed(commands)}
    return dict(zip(first, await asyncio.gather(*(make(command) for command in first.values())), strict=True))


async def _as_wanted(user: User, command: NewUser, passwords: Passwords) -> UserView | PayflowError:
    is_same = (user.role, user.customer_id) == (command.role, command.customer_id)
    if is_same and await _has_password(user, command, passwords):
        return user.view()
    return UserExists(f"There is a user {user.username} with other contents.")


async def _has_password(user: User, command: NewUser, passwords: Passwords) -> bool:
    if command.password_hash is not None:
        return command.password_hash == user.password_hash
    return await passwords.verify(password=command.password or "", password_hash=user.password_hash)


async def list_users(*, after: str | None, limit: int, store: Store) -> tuple[list[UserView], str | None]:
    """A page of users in the order of their names, and the name to go on after, None at the end."""
    users = await store.users_page(after=after, limit=limit + 1)
    page = [user.view() for user in users[:limit]]
    return page, page[-1].username if len(users) > limit else None


async def set_enabled(
    *,
    commands: Sequence[SetEnabled],
    store: Store,
    revocations: Revocations,
    lifetimes: Lifetimes,
    events: SecurityEvents,
    now: datetime,
) -> Answers[UserView]:
    """Let users sign in, or not: then their sessions end and their access tokens are revoked on every gateway.

    Items may be UserNotFound; nothing changes for a user who is as wanted already.
    """
    answers: Answers[UserView] = []
    for command in commands:
        key = name_key(command.username)
        user = (await store.users([key])).get(key)
        if user is None:
            answers.append(UserNotFound())
            continue
        await _set_enabled(user, command, store, revocations, lifetimes, events, now)
        answers.append(msgspec.structs.replace(user, is_enabled=command.is_enabled).view())
    return answers


async def _set_enabled(
    user: User,
    command: SetEnabled,
    store: Store,
    revocations: Revocations,
    lifetimes: Lifetimes,
    events: SecurityEvents,
    now: datetime,
) -> None:
    revoked: list[Revocation] = []
    number = 0
    async with store.transaction() as transaction:
        changed = await transaction.set_enabled([user.user_id], is_enabled=command.is_enabled)
        if not command.is_enabled:
            expiring_after = sessions_with_tokens_expire_after(lifetimes=lifetimes, now=now)
            sessions = await transaction.open_sessions_of([user.user_id], expiring_after=expiring_after)
            await transaction.end_sessions([(session_id, "user disabled") for session_id in sessions], now)
            revoked = [
                revocation_of_session(session_id=session_id, reason="user disabled", lifetimes=lifetimes, now=now)
                for session_id in sessions
            ]
        if revoked:
            number = await transaction.revoke(revoked, now)
        if changed:
            await transaction.append_events(
                [
                    events.make(
                        "user_enabled" if command.is_enabled else "user_disabled",
                        actor=command.changed_by,
                        subject=f"user/{user.username}",
                        version=changed[user.user_id],
                    )
                ]
            )
    if revoked:
        await revocations.publish(revoked, number=number)


async def users_with_password(
    *, usernames: Sequence[str], password: str, store: Store, passwords: Passwords
) -> list[str]:
    """Those of these users who may sign in with this password, in the order given."""
    known = await store.users([name_key(username) for username in usernames])
    found = [known[name_key(username)] for username in usernames if name_key(username) in known]
    return [
        user.username
        for user in found
        if user.is_enabled and await passwords.verify(password=password, password_hash=user.password_hash)
    ]


async def bootstrap_admin(
    *, password: str, store: Store, passwords: Passwords, ids: Ids, events: SecurityEvents, now: datetime
) -> bool:
    """Make the first administrator when there is no user at all; returns whether this call made one.

    Two gateways that start at once make one between them: the name is unique.
    """
    if await store.has_users():
        return False
    command = NewUser(username=BOOTSTRAP_ADMIN, role=Role.ADMIN, password=password)
    (made,) = await create_users(
        commands=[command], store=store, passwords=passwords, ids=ids, events=events, now=now, created_by="bootstrap"
    )
    if isinstance(made, PayflowError) and not isinstance(made, UserExists):
        raise made
    return True
