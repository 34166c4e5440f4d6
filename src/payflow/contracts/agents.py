"""The other banks that payments can be sent to: one directory, read by account (who is reachable) and partner_bank."""

from __future__ import annotations

from typing import Final

import msgspec

# Fictional banks of the simulator that `payflow up` starts; their bank codes are not in use.
DEMO_AGENTS: Final = (
    '[{"bic":"NORDDEFFXXX","name":"Nordbank AG","iban_prefixes":["DE:99010010"]},'
    '{"bic":"LUTEFRPPXXX","name":"Banque Lutece","iban_prefixes":["FR:99002"]}]'
)


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """Another bank. `iban_prefixes` are "CC:bank code" as IBANs carry it; `url` is where its rail is reached."""

    bic: str
    name: str
    iban_prefixes: list[str] = []
    url: str = ""


def read_agents(text: str) -> list[Agent]:
    """Read the directory: a JSON list of agents. Raises ValueError."""
    try:
        return msgspec.json.decode(text, type=list[Agent])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"agents: {error}") from None


class AgentDirectory:
    """Finds the bank behind an IBAN or a BIC."""

    def __init__(self, agents: list[Agent]) -> None:
        self._by_bic = {agent.bic: agent for agent in agents}
        self._by_prefix = {prefix: agent for agent in agents for prefix in agent.iban_prefixes}

    def by_bic(self, bic: str) -> Agent | None:
        """The bank with this BIC; BIC8 and BIC11 with branch XXX are the same bank."""
        bic = bic.upper()
        return self._by_bic.get(bic) or self._by_bic.get(f"{bic}XXX" if len(bic) == 8 else bic[:8])

    def by_iban(self, *, country: str, bank_code: str) -> Agent | None:
        """The bank that an IBAN's country and bank code name."""
        return self._by_prefix.get(f"{country}:{bank_code}")
