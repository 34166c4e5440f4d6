"""The way to the partner bank: a signed message in, its pacs.002 out."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp

from payflow.services.partner_bank.domain import same_bank
from payflow.services.partner_bank.rails.iso20022 import (
    CreditTransferMessage,
    StatusMessage,
    StatusRequestMessage,
    TransactionStatus,
    UnreadableMessage,
    build_credit_transfers,
    build_status_request,
    read_message,
)
from payflow.services.partner_bank.rails.signing import BANK_HEADER, SIGNATURE_HEADER, is_answer_signed, sign


class Sender:
    """Posts messages of one transaction to the partner bank."""

    def __init__(self, *, session: aiohttp.ClientSession, url: str, secret: str) -> None:
        self._session = session
        self._url = url
        self._secret = secret

    async def ask(self, message: CreditTransferMessage | StatusRequestMessage) -> TransactionStatus | None:
        """The answer about the message's only transaction; None when no readable one came that the partner signed."""
        is_payment = isinstance(message, CreditTransferMessage)
        body = build_credit_transfers(message) if is_payment else build_status_request(message)  # type: ignore[arg-type]
        bic = message.header.instructing_bic or ""
        signature = sign(body, bank_bic=bic, secret=self._secret)
        headers = {"content-type": "application/xml", BANK_HEADER: bic, SIGNATURE_HEADER: signature}
        try:
            async with self._session.post(self._url, data=body, headers=headers) as response:
                if response.status != 200:
                    return None
                data = await response.read()
                if not self._is_partners(data, response.headers, message.header.instructed_bic, signature):
                    return None
                answer = read_message(data)
        except (aiohttp.ClientError, OSError, TimeoutError, UnreadableMessage):
            return None
        if not isinstance(answer, StatusMessage):
            return None
        wanted = message.transactions[0].end_to_end_id
        return next((one for one in answer.transactions if one.end_to_end_id == wanted), None)

    def _is_partners(
        self, answer: bytes, headers: Mapping[str, str], partner_bic: str | None, request_signature: str
    ) -> bool:
        bic = headers.get(BANK_HEADER, "")
        return same_bank(partner_bic, bic) and is_answer_signed(
            answer,
            bank_bic=bic,
            secret=self._secret,
            request_signature=request_signature,
            signature=headers.get(SIGNATURE_HEADER, ""),
        )
