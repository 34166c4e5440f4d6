"""The simulated other bank's control address, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from tests.builders import NORDBANK_BIC as NORDBANK_BIC
from tests.support.api import Answer, Api

# Accounts of the two fictional banks.
NORDBANK: Final = "DE08990100100000001001"
LUTECE: Final = "FR7699002000010000000200107"
NORDBANK_NUMBER: Final = "1000200300"


class OtherBank:
    """Tells the other bank how to behave, reads its books, and has it pay into our accounts."""

    def __init__(self, api: Api) -> None:
        self._api = api

    @asynccontextmanager
    async def behaving(self, mode: str, **particulars: Any) -> AsyncIterator[None]:
        """Behave like this inside the block, and accept everything again behind it."""
        await self._control({"mode": mode, **particulars})
        try:
            yield
        finally:
            await self._control({"mode": "accept"})

    async def received(self, end_to_end_id: str) -> dict[str, Any] | None:
        """What the bank's books say of a payment to it, None where it never arrived."""
        answer = await self._api.send("GET", f"/books?end_to_end_id={end_to_end_id}")
        assert answer.status == 200, answer
        found = answer.json["received"]
        assert len(found) <= 1, found
        return dict(found[0]) if found else None

    async def pay(self, to_account: str, amount: str, currency: str, **fields: Any) -> Answer:
        """Pay into one of our accounts."""
        body = {"to_account": to_account, "amount": amount, "currency": currency, **fields}
        return await self._api.send("POST", "/pay", json_body=body)

    async def _control(self, document: dict[str, Any]) -> None:
        answer = await self._api.send("PUT", "/control", json_body=document)
        assert answer.status == 200, answer
