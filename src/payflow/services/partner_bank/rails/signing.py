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
    """The signature of a message that this bank sends: "sha256=" and hexadecimal digits."""
    return _digest(bank_bic.encode() + b"\n" + body, secret)


def is_signed(body: bytes, *, bank_bic: str, secret: str, signature: str) -> bool:
    """Whether the bank signed this message; compared in constant time."""
    return _is_same(sign(body, bank_bic=bank_bic, secret=secret), signature)


def sign_answer(body: bytes, *, bank_bic: str, secret: str, request_signature: str) -> str:
    """The signature of this bank's answer to the message with that signature, and to no other.

    The first line, which no BIC is, keeps a signed message from serving as an answer.
    """
    return _digest(b"\n".join((b"answer", request_signature.encode(), bank_bic.encode(), body)), secret)


def is_answer_signed(body: bytes, *, bank_bic: str, secret: str, request_signature: str, signature: str) -> bool:
    """Whether the bank signed this answer to the message with that signature; compared in constant time."""
    expected = sign_answer(body, bank_bic=bank_bic, secret=secret, request_signature=request_signature)
    return _is_same(expected, signature)


def _digest(message: bytes, secret: str) -> str:
    return "sha256=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def _is_same(expected: str, signature: str) -> bool:
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
