"""Which accounts at other banks can be paid: IBANs checked by schwifty, banks from the configured directory."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from schwifty import IBAN
from schwifty.exceptions import InvalidChecksumDigits, InvalidLength, InvalidStructure, SchwiftyException

from payflow.contracts.account import CreditorUnreachable
from payflow.contracts.agents import AgentDirectory

_SHAPE: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")


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

    def agent_of(self, *, account: str, agent_bic: str | None) -> str | CreditorUnreachable:
        iban = _read_iban(account)
        if iban is not None:
            agent = self._directory.by_iban(country=iban[0], bank_code=iban[1])
            if agent is None:
                return CreditorUnreachable("to_account is an IBAN of a bank that cannot be reached from here.")
            # A BIC that contradicts the IBAN is refused: nobody can tell which of the two was meant.
            if agent_bic is not None and self._directory.by_bic(agent_bic) != agent:
                return CreditorUnreachable("creditor.agent is not the bank that the IBAN in to_account names.")
            return agent.bic
        if not agent_bic:
            return CreditorUnreachable(_mistyped(account))
        agent = self._directory.by_bic(agent_bic)
        return agent.bic if agent else CreditorUnreachable("creditor.agent is no bank that can be reached from here.")

    def country_of(self, account: str) -> str | None:
        iban = _read_iban(account)
        return iban[0] if iban else None


def _mistyped(account: str) -> str:
    """What is wrong with a text that was meant to be an IBAN; "" where it was not."""
    if not _SHAPE.fullmatch(account):
        return ""
    try:
        IBAN(account)
    except InvalidChecksumDigits:
        problem = "the IBAN's check digits are wrong"
    except InvalidLength:
        problem = f"IBANs of {account[:2]} have another length"
    except InvalidStructure:
        problem = f"IBANs of {account[:2]} have other characters"
    except SchwiftyException:
        return ""  # such as a country that has no IBANs
    return f"to_account is a mistyped IBAN: {problem}."
