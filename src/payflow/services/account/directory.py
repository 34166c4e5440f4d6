"""Which accounts at other banks can be paid: IBANs checked by schwifty, banks from the configured directory."""

from __future__ import annotations

from functools import lru_cache

from schwifty import IBAN
from schwifty.exceptions import SchwiftyException

from payflow.contracts.agents import AgentDirectory


@lru_cache(maxsize=20_000)
def _read_iban(account: str) -> tuple[str, str] | None:
    """Country and bank code of a valid IBAN, or None."""
    try:
        iban = IBAN(account)
    except (SchwiftyException, ValueError):
        return None
    return iban.country_code, iban.bank_code


class ConfiguredBanks:
    """The banks of the `agents` setting (see ports.BankDirectory)."""

    def __init__(self, directory: AgentDirectory) -> None:
        self._directory = directory

    def agent_of(self, *, account: str, agent_bic: str | None) -> str | None:
        iban = _read_iban(account)
        if iban is not None:
            agent = self._directory.by_iban(country=iban[0], bank_code=iban[1])
            # A BIC that contradicts the IBAN is refused: nobody can tell which of the two was meant.
            if agent is None or (agent_bic is not None and self._directory.by_bic(agent_bic) != agent):
                return None
            return agent.bic
        agent = self._directory.by_bic(agent_bic) if agent_bic else None
        return agent.bic if agent else None

    def country_of(self, account: str) -> str | None:
        iban = _read_iban(account)
        return iban[0] if iban else None
