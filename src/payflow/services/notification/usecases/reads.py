"""Questions about messages, and customers' preferences."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from payflow.contracts.notification import (
    DemoCode,
    FindDemoCode,
    GetPreferences,
    ListMessages,
    MessageList,
    NoDemoChannel,
    NoMessage,
    Preferences,
    UnknownPreference,
)
from payflow.contracts.operation import Answers
from payflow.kernel.errors import PayflowError
from payflow.services.notification.domain import Preference
from payflow.services.notification.ports import DemoOutbox, Store, Templates

LIMIT_MAX = 200


async def find_demo_codes(*, queries: Sequence[FindDemoCode], demo: DemoOutbox | None) -> Answers[DemoCode]:
    """The newest code for each transaction. Items may be NoMessage, or NoDemoChannel where it is switched off."""
    if demo is None:
        return [NoDemoChannel() for _ in queries]
    return [code or NoMessage() for code in await demo.newest_codes(queries)]


async def list_messages(*, queries: Sequence[ListMessages], store: Store) -> Answers[MessageList]:
    """What was sent to each customer, newest first, at most 200, without any code."""
    return [
        MessageList(messages=await store.list_messages(query.customer_id, max(1, min(query.limit, LIMIT_MAX))))
        for query in queries
    ]


async def get_preferences(*, queries: Sequence[GetPreferences], store: Store) -> Answers[Preferences]:
    """How each customer wants to be written to; the defaults for those who never said."""
    async with store.transaction() as messages:
        known = await messages.preferences(sorted({query.customer_id for query in queries}))

    def answer(query: GetPreferences) -> Preferences:
        preference = known.get(query.customer_id, Preference())
        return Preferences(
            customer_id=query.customer_id, language=preference.language, channels=list(preference.channels)
        )

    return [answer(query) for query in queries]


async def set_preferences(
    *, commands: Sequence[Preferences], store: Store, templates: Templates, channels: Sequence[str], now: datetime
) -> Answers[Preferences]:
    """Store how customers want to be written to; the last command for a customer holds.

    Items may be UnknownPreference: no such language, or no such channel in use.
    """

    def check(command: Preferences) -> Preferences | PayflowError:
        if command.language not in templates.languages():
            return UnknownPreference(f"There are no messages in {command.language[:16]!r}.")
        if not set(command.channels) <= set(channels) or len(set(command.channels)) != len(command.channels):
            return UnknownPreference(f"Channels in use: {', '.join(channels)}; each at most once.")
        return command

    answers = [check(command) for command in commands]
    accepted = {
        answer.customer_id: Preference(language=answer.language, channels=tuple(answer.channels))
        for answer in answers
        if isinstance(answer, Preferences)
    }
    await store.set_preferences(accepted, now)
    return answers
