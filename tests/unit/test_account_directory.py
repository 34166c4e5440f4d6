"""Which accounts at other banks can be paid, and what is said of those that cannot."""

from __future__ import annotations

import pytest

from payflow.contracts.account import CreditorUnreachable
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.services.account.directory import ConfiguredBanks
from tests.builders import NORDBANK_BIC as NORDBANK

BANKS = ConfiguredBanks(AgentDirectory(read_agents(DEMO_AGENTS)))
ERIKA = "DE08990100100000001001"


@pytest.mark.parametrize(
    ("account", "agent_bic"),
    [(ERIKA, None), (ERIKA, NORDBANK), ("0000001001", NORDBANK), ("DE08990100100000001002", NORDBANK)],
)
def test_an_account_of_a_known_bank_is_paid_there(account: str, agent_bic: str | None) -> None:
    assert BANKS.agent_of(account=account, agent_bic=agent_bic) == NORDBANK


@pytest.mark.parametrize(
    ("account", "agent_bic", "detail"),
    [
        ("DE08990100100000001002", None, "to_account is a mistyped IBAN: the IBAN's check digits are wrong."),
        ("DE0899010010000000100", None, "to_account is a mistyped IBAN: IBANs of DE have another length."),
        ("DE0899010010000000100X", None, "to_account is a mistyped IBAN: IBANs of DE have other characters."),
        ("GB82WEST12345698765432", None, "to_account is an IBAN of a bank that cannot be reached from here."),
        ("GB82WEST12345698765432", NORDBANK, "to_account is an IBAN of a bank that cannot be reached from here."),
        (ERIKA, "LUTEFRPPXXX", "creditor.agent is not the bank that the IBAN in to_account names."),
        ("0000001001", "NOBKDEFFXXX", "creditor.agent is no bank that can be reached from here."),
        # What stands for itself: the text of the code says it all.
        ("ACC999", None, ""),
        ("XX12345678901234567", None, ""),
    ],
)
def test_an_account_that_cannot_be_paid_is_refused_with_what_is_wrong(
    account: str, agent_bic: str | None, detail: str
) -> None:
    assert BANKS.agent_of(account=account, agent_bic=agent_bic) == CreditorUnreachable(detail)
