"""How banks know each other's messages: an HMAC-SHA256 over the body under a secret that two banks share."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

import msgspec

from payflow.contracts.agents import Agent

BANK_HEADER: Final = "payflow-bank"
SIGNATURE_HEADER: Final = "payflow-signature"


def sign(body: bytes, *, bank_bic: str, secret: str) -> str:
    """The signature of a body that this bank sends: "sha256=" and hexadecimal digits."""
    message = bank_bic.encode() + b"\n" + body
    return "sha256=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def is_signed(body: bytes, *, bank_bic: str, secret: str, signature: str) -> bool:
    """Whether the bank signed this body; compared in constant time."""
    expected = sign(body, bank_bic=bank_bic, secret=secret)
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", errors="replace"))


class BankSecrets:
    """The secret shared with each bank: its own, else the one for all."""

    def __init__(self, *, by_bic: Mapping[str, str], for_all: str) -> None:
        self._by_bic = dict(by_bic)
        self._for_all = for_all

    @classmethod
    def read(cls, text: str, *, for_all: str) -> BankSecrets:
        """Read a JSON object of BIC to secret. Raises ValueError."""
        try:
            return cls(by_bic=msgspec.json.decode(text, type=dict[str, str]), for_all=for_all)
        except (msgspec.DecodeError, msgspec.ValidationError):
            raise ValueError("expected a JSON object of BIC to secret") from None

    def of(self, bic: str) -> str:
        """The secret shared with this bank."""
        return self._by_bic.get(bic, self._for_all)

    def lacks_own(self, agents: list[Agent]) -> list[str]:
        """The banks that have no secret of their own."""
        return [agent.bic for agent in agents if not self._by_bic.get(agent.bic)]
