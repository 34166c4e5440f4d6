"""Reads the account service's settings and wires it."""

from __future__ import annotations

from typing import Annotated, Final

from payflow.contracts.account import Account
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database
from payflow.platform.service import Runtime, Service, every
from payflow.platform.settings import CommonSettings, SettingsError, describe
from payflow.services.account.api import AccountApi, Upkeep, read_time_of_day
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.account.store import PostgresStore
from payflow.services.account.usecases import ledger

_PARTITIONS_CHECK_S: Final = 6 * 3600.0
_VERIFY_CHECK_S: Final = 60.0


class AccountSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the account service."""

    column_keys: Annotated[
        str, describe("keys of encrypted columns as JSON; best given as _FILE", check=ColumnCipher.from_json)
    ]
    agents: Annotated[str, describe("other banks that can be paid, as a JSON list", check=read_agents)] = DEMO_AGENTS
    hold_expiry_check_s: Annotated[float, describe("pause between looks for expired holds")] = 5.0
    ledger_verify_at: Annotated[
        str, describe("when the ledger is verified each day, as HH:MM in UTC", check=read_time_of_day)
    ] = "02:00"


SETTINGS = AccountSettings


async def build(runtime: Runtime) -> Service:
    """Wire the account service."""
    settings = runtime.settings(AccountSettings)
    try:
        banks = ConfiguredBanks(AgentDirectory(read_agents(settings.agents)))
    except ValueError as error:
        raise SettingsError(f"PAYFLOW_AGENTS: {error}") from None
    database = await runtime.database()

    def store_over(database: Database) -> PostgresStore:
        cipher = runtime.cipher(settings.column_keys)
        return PostgresStore(database=database, cipher=cipher, outbox=runtime.outbox(database), ids=runtime.ids)

    store = store_over(database)
    reads = await runtime.reads(store, store_over, database=database)
    api = AccountApi(store=store, banks=banks, clock=runtime.clock, ids=runtime.ids, reads=reads)
    upkeep = Upkeep(store=store, clock=runtime.clock, at=read_time_of_day(settings.ledger_verify_at))
    return Service(
        implementations=[(Account, api)],
        checks=dict(runtime.checks_for(database=database)),
        required={"postgres"},
        background={
            "expire_holds": every(
                settings.hold_expiry_check_s, lambda: ledger.expire_holds(store=store, now=runtime.clock.now())
            ),
            "make_partitions": every(_PARTITIONS_CHECK_S, upkeep.make_partitions),
            "verify_ledger": every(_VERIFY_CHECK_S, upkeep.verify_daily),
        },
    )
