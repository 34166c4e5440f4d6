"""Proof that a name was screened and found clear: kept once per name and list version, not once per payment."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

from payflow.services.ofac.domain.lru import Lru
from payflow.services.ofac.domain.names import normalise
from payflow.services.ofac.domain.results import PartyName

# 8 MB when full. A name that was forgotten is screened again, and its proof, which is there, stays as it is.
_REMEMBERED_MAX: Final = 32_768


class ClearedNames:
    """The names that are clear on one list version and whose proof is known to be stored.

    A proof is an HMAC: names are so few that a plain hash of one would be found by trying them all.
    """

    def __init__(self, *, key: bytes, list_version: str, remembered_max: int = _REMEMBERED_MAX) -> None:
        self.list_version: Final = list_version
        self._key = key
        self._stored: Lru[PartyName, bool] = Lru(remembered_max)

    def holds(self, party: PartyName) -> bool:
        """Whether the name is known to be clear and proved: it need be neither screened nor stored again."""
        return self._stored.get(party) is not None

    def proof_of(self, party: PartyName) -> bytes:
        """What is stored for the name: 32 bytes, the same however the name is spelled, cased or spaced.

        The country is part of it, for it adds to a score: a name can be clear without it and a match with it.
        """
        text = f"{normalise(party.name).key}\n{(party.country or '').upper()}"
        return hmac.digest(self._key, text.encode(), "sha256")

    def remember(self, parties: Iterable[PartyName]) -> None:
        """Note that the proofs of these names are stored. Call it after the commit, never before."""
        for party in parties:
            self._stored.put(party, True)
