"""Reads the simulated other bank's settings and wires it. It stands for the world outside; production refuses it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from payflow.contracts.agents import DEMO_AGENTS, read_agents
from payflow.platform.service import Runtime, Service, every
from payflow.platform.settings import CommonSettings, SettingsError, describe
from payflow.services.partner_bank.app import DEMO_SECRET, bank_session
from payflow.services.partner_bank.rails.inbound import PATH
from payflow_dev.other_bank.http import OtherBankApp
from payflow_dev.other_bank.store import BooksStore
from payflow_dev.other_bank.usecases import Bank
from payflow_dev.other_bank.wire import Sender


class OtherBankSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the simulated other bank."""

    agents: Annotated[str, describe("other banks that can be paid, as a JSON list", check=read_agents)] = DEMO_AGENTS
    own_bic: Annotated[str, describe("Payflow's own BIC, as other banks know us")] = "PAYFDEFFXXX"
    inbound_secret: Annotated[str, describe("secret that signs messages between banks; best given as _FILE")] = (
        DEMO_SECRET
    )
    other_bank_timeout_s: Annotated[
        float, describe("seconds that the simulated bank waits for an answer"), msgspec.Meta(gt=0)
    ] = 15.0
    other_bank_ask_again_s: Annotated[
        float, describe("pause of the simulated bank between looks for unanswered payments"), msgspec.Meta(gt=0)
    ] = 2.0


SETTINGS = OtherBankSettings


async def build(runtime: Runtime) -> Service:
    """Wire the simulated other bank."""
    settings = runtime.settings(OtherBankSettings)
    if settings.env == "production":
        raise SettingsError("The simulated other bank is refused in production.")
    try:
        agents = [agent.bic for agent in read_agents(settings.agents)]
    except ValueError as error:
        raise SettingsError(f"PAYFLOW_AGENTS: {error}") from None
    database = await runtime.database()
    store = BooksStore(database)
    session = bank_session(settings.other_bank_timeout_s)
    runtime.on_close(session.close)
    sender = Sender(
        session=session, url=f"{settings.partner_bank_url.rstrip('/')}{PATH}", secret=settings.inbound_secret
    )
    bank = Bank(store=store, sender=sender, own_bic_of_partner=settings.own_bic, clock=runtime.clock, ids=runtime.ids)
    app = OtherBankApp(
        bank=bank, store=store, agents=agents, partner_bic=settings.own_bic, secret=settings.inbound_secret
    )
    return Service(
        app=app,
        checks=dict(runtime.checks_for(database=database)),
        required={"postgres"},
        background={"ask_again": every(settings.other_bank_ask_again_s, bank.ask_again)},
    )
