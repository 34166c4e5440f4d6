"""Reads the risk service's settings and wires it."""

from __future__ import annotations

from typing import Annotated

from payflow.contracts.kyc import Kyc
from payflow.contracts.ofac import Ofac
from payflow.contracts.risk import Risk
from payflow.platform.eventlog.rests import REST_MAX_S
from payflow.platform.service import Runtime, Service
from payflow.platform.settings import CommonSettings, SettingsError, describe
from payflow.services.risk.api import RiskApi
from payflow.services.risk.consumer import TOPICS, OutcomeHandler
from payflow.services.risk.domain import RuleSet
from payflow.services.risk.rules import default_rules, read_rules
from payflow.services.risk.store import PostgresCorrections, PostgresStore
from payflow.services.risk.usecases import REFUSED, RETURNS


def _given_rules(text: str) -> RuleSet:
    return read_rules(text) if text else default_rules()


class RiskSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the risk service."""

    risk_rules: Annotated[
        str,
        describe(
            "rules and thresholds as TOML; best given as _FILE. Empty: the rules of this release",
            check=_given_rules,
        ),
    ] = ""


SETTINGS = RiskSettings


async def build(runtime: Runtime) -> Service:
    """Wire the risk service. The newest rule set that the database or the settings have is the one in force."""
    settings = runtime.settings(RiskSettings)
    database = await runtime.database()
    store = PostgresStore(database=database)
    rules = await _rules_in_force(runtime, settings, store)
    api = RiskApi(
        store=store,
        sanctions=runtime.client(Ofac),
        customers=runtime.client(Kyc),
        rules=rules,
        clock=runtime.clock,
    )
    consumer = runtime.consumer(
        topics=TOPICS,
        types=REFUSED | RETURNS,
        handler=OutcomeHandler(PostgresCorrections),
        database=database,
        # Nearly every event is none of these. Who pays again within that time counts the refused one, too.
        rest_min_s=REST_MAX_S,
    )
    return Service(
        implementations=[(Risk, api)],
        checks=dict(runtime.checks_for(database=database)),
        required={"postgres"},
        background={"take_out_refused": consumer.run},
    )


async def _rules_in_force(runtime: Runtime, settings: RiskSettings, store: PostgresStore) -> RuleSet:
    try:
        given = _given_rules(settings.risk_rules)
    except ValueError as error:
        raise SettingsError(f"PAYFLOW_RISK_RULES: {error}") from None
    in_force = await store.activate(given, now=runtime.clock.now())
    if in_force.version == given.version and in_force != given:
        raise SettingsError(
            f"PAYFLOW_RISK_RULES: version {given.version} is stored with other contents; raise the version."
        )
    return in_force
