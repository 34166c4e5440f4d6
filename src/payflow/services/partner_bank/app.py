"""Reads the partner_bank service's settings and wires it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from payflow.contracts.account import Account
from payflow.contracts.agents import DEMO_AGENTS, Agent, AgentDirectory, read_agents
from payflow.contracts.confirm import Confirm
from payflow.contracts.ofac import Ofac
from payflow.contracts.partner_bank import PartnerBank
from payflow.kernel.four_eyes import FourEyes
from payflow.platform.crypto import ColumnCipher
from payflow.platform.service import Runtime, Service, every
from payflow.platform.settings import CommonSettings, SettingsError, describe
from payflow.services.partner_bank.api import InboundApi, PartnerBankApi
from payflow.services.partner_bank.domain import Pauses, TakenBackRules
from payflow.services.partner_bank.rails.http import HttpRail
from payflow.services.partner_bank.rails.inbound import InboundApp
from payflow.services.partner_bank.rails.signing import BankSecrets
from payflow.services.partner_bank.store import PostgresStore
from payflow.services.partner_bank.usecases.events import IncomingEvents
from payflow.services.partner_bank.usecases.incoming import Settlement
from payflow.services.partner_bank.usecases.returns import Returns
from payflow.services.partner_bank.usecases.suspense import Suspense
from payflow.services.partner_bank.usecases.taken_back import TakenBack

DEMO_SECRET: Final = "demo-bank-secret"  # noqa: S105 - public on purpose, and refused in production
# Reviews are decided by people: asking about every held payment more often would only load ofac.
SUSPENSE_PAUSE_S: Final = 5.0
_Bic = Annotated[str, msgspec.Meta(pattern="^[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?$")]
_Seconds = Annotated[float, msgspec.Meta(gt=0)]


def _read_secrets(text: str) -> BankSecrets:
    return BankSecrets.read(text, for_all="")


class PartnerBankSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the partner_bank service."""

    column_keys: Annotated[
        str, describe("keys of encrypted columns as JSON; best given as _FILE", check=ColumnCipher.from_json)
    ]
    own_bic: Annotated[_Bic, describe("our own BIC, as other banks know us")] = "PAYFDEFFXXX"
    agents: Annotated[str, describe("other banks that can be paid, as a JSON list", check=read_agents)] = DEMO_AGENTS
    other_bank_url: Annotated[str, describe("where banks without a url of their own are: the simulated one")] = (
        "http://127.0.0.1:3012"
    )
    inbound_secret: Annotated[str, describe("secret that signs messages between banks; best given as _FILE")] = (
        DEMO_SECRET
    )
    bank_secrets: Annotated[
        str, describe("a secret for each bank as JSON of BIC to secret; best given as _FILE", check=_read_secrets)
    ] = "{}"
    bank_timeout_s: Annotated[_Seconds, describe("seconds that an answer of another bank is waited for")] = 2.0
    bank_messages_in_flight: Annotated[int, describe("messages under way to one bank"), msgspec.Meta(ge=1)] = 16
    bank_pause_first_s: Annotated[_Seconds, describe("pause before the second enquiry; doubles with each")] = 0.5
    bank_pause_longest_s: Annotated[_Seconds, describe("longest pause between enquiries")] = 30.0
    bank_answer_repeat_s: Annotated[_Seconds, describe("seconds until confirm is told an answer once more")] = 5.0
    taken_back_four_eyes_above: Annotated[
        str,
        describe(
            "what a bank has taken back by one operator's word alone, in whole units; exceptions: 1000,JPY=150000",
            check=FourEyes.parse,
        ),
    ] = "1000"
    taken_back_approval_s: Annotated[_Seconds, describe("seconds that such a word waits for its second person")] = (
        259_200.0
    )
    bank_duty_pause_s: Annotated[_Seconds, describe("pause between looks for what is due")] = 0.5


SETTINGS = PartnerBankSettings


def read_banks(settings: PartnerBankSettings) -> tuple[list[Agent], BankSecrets]:
    """The directory and its secrets. Raises SettingsError; in production also for anything of the demo."""
    try:
        agents = read_agents(settings.agents)
    except ValueError as error:
        raise SettingsError(f"PAYFLOW_AGENTS: {error}") from None
    try:
        secrets = BankSecrets.read(settings.bank_secrets, for_all=settings.inbound_secret)
    except ValueError as error:
        raise SettingsError(f"PAYFLOW_BANK_SECRETS: {error}") from None
    if settings.env == "production":
        without_url = [agent.bic for agent in agents if not agent.url]
        if without_url:
            raise SettingsError(f"PAYFLOW_AGENTS: in production every bank needs a url: {', '.join(without_url)}")
        without_tls = [agent.bic for agent in agents if not _is_https(agent.url)]
        if without_tls:
            raise SettingsError(f"PAYFLOW_AGENTS: in production every url is an https one: {', '.join(without_tls)}")
        without_secret = secrets.lacks_own(agents)
        if without_secret and settings.inbound_secret in ("", DEMO_SECRET):
            raise SettingsError(
                "PAYFLOW_INBOUND_SECRET: the demo secret is refused in production; set it, or give each bank one in "
                f"PAYFLOW_BANK_SECRETS (missing: {', '.join(without_secret)})"
            )
    return agents, secrets


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname)
    except ValueError:
        return False


def bank_session(timeout_s: float) -> aiohttp.ClientSession:
    """An HTTP client for other banks: no cookies, no proxies from the environment, no more than is waited for."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(1.0, timeout_s)),
        trust_env=False,
    )


def _rail(runtime: Runtime, settings: PartnerBankSettings, secrets: BankSecrets) -> HttpRail:
    session = bank_session(settings.bank_timeout_s)
    runtime.on_close(session.close)
    return HttpRail(
        session=session,
        own_bic=settings.own_bic,
        default_url=f"{settings.other_bank_url.rstrip('/')}/iso20022",
        secrets=secrets,
        clock=runtime.clock,
        timeout_s=settings.bank_timeout_s,
        messages_in_flight=settings.bank_messages_in_flight,
    )


def _receiver(runtime: Runtime, settings: PartnerBankSettings, store: PostgresStore, pauses: Pauses) -> InboundApi:
    account, ofac = runtime.client(Account), runtime.client(Ofac)
    events = IncomingEvents(ids=runtime.ids, source=runtime.service)
    return InboundApi(
        store=store,
        settlement=Settlement(
            store=store, account=account, ofac=ofac, events=events, clock=runtime.clock, pauses=pauses
        ),
        suspense=Suspense(
            store=store,
            account=account,
            ofac=ofac,
            events=events,
            ids=runtime.ids,
            clock=runtime.clock,
            pauses=pauses,
        ),
        own_bic=settings.own_bic,
        clock=runtime.clock,
        pauses=pauses,
    )


def _returns(runtime: Runtime, store: PostgresStore, rail: HttpRail, agents: AgentDirectory, pauses: Pauses) -> Returns:
    return Returns(
        store=store,
        rail=rail,
        agents=agents,
        account=runtime.client(Account),
        events=IncomingEvents(ids=runtime.ids, source=runtime.service),
        ids=runtime.ids,
        clock=runtime.clock,
        pauses=pauses,
    )


def taken_back_rules(settings: PartnerBankSettings) -> TakenBackRules:
    """When two people are asked whether a bank has its money, and for how long the first one's word waits."""
    return TakenBackRules(
        four_eyes=FourEyes.parse(settings.taken_back_four_eyes_above),
        approval=timedelta(seconds=settings.taken_back_approval_s),
    )


def _duties(api: PartnerBankApi, receiver: InboundApi, *, pause: float) -> dict[str, Callable[[], Awaitable[None]]]:
    return {
        "enquire_unknown": every(pause, api.enquire_unknown),
        "deliver_answers": every(pause, api.deliver_answers),
        "settle_pending": every(pause, receiver.settle_pending),
        "look_after_suspense": every(max(pause, SUSPENSE_PAUSE_S), receiver.look_after_suspense),
        "offer_returns": every(pause, api.offer_returns),
        "book_returns": every(pause, api.book_returns),
        "measure_open_incoming": every(5, receiver.measure_open_incoming),
    }


async def build(runtime: Runtime) -> Service:
    """Wire the partner_bank service."""
    settings = runtime.settings(PartnerBankSettings)
    agent_list, secrets = read_banks(settings)
    agents = AgentDirectory(agent_list)
    pauses = Pauses(settings.bank_pause_first_s, settings.bank_pause_longest_s, settings.bank_answer_repeat_s)
    database = await runtime.database()
    store = PostgresStore(
        database=database, cipher=runtime.cipher(settings.column_keys), outbox=runtime.outbox(database)
    )
    rail = _rail(runtime, settings, secrets)
    api = PartnerBankApi(
        store=store,
        rail=rail,
        agents=agents,
        returns=_returns(runtime, store, rail, agents, pauses),
        taken_back=TakenBack(store=store, clock=runtime.clock, rules=taken_back_rules(settings)),
        confirm=runtime.client(Confirm),
        clock=runtime.clock,
        ids=runtime.ids,
        pauses=pauses,
        bank_timeout_s=settings.bank_timeout_s,
    )
    receiver = _receiver(runtime, settings, store, pauses)
    return Service(
        implementations=[(PartnerBank, api)],
        app=InboundApp(
            receiver=receiver,
            agents=agents,
            secrets=secrets,
            own_bic=settings.own_bic,
            clock=runtime.clock,
            ids=runtime.ids,
        ),
        checks=dict(runtime.checks_for(database=database)),
        required={"postgres"},
        background=_duties(api, receiver, pause=settings.bank_duty_pause_s),
    )
