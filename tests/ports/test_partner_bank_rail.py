"""The rail over real HTTP: whose answer is believed, and what happens to any other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

import aiohttp
import pytest
import structlog

from payflow.contracts.agents import Agent
from payflow.contracts.partner_bank import SubmitCreditTransfer
from payflow.platform.http.asgi import Receive, Scope, Send, bytes_response, header, read_body, send_response
from payflow.services.partner_bank.app import bank_session
from payflow.services.partner_bank.domain import (
    SILENCE,
    BankWord,
    Instruction,
    Word,
    first_return,
    outgoing_instruction,
)
from payflow.services.partner_bank.rails.http import HttpRail
from payflow.services.partner_bank.rails.iso20022 import (
    CreditTransferMessage,
    Header,
    StatusMessage,
    StatusRequestMessage,
    TransactionStatus,
    build_statuses,
    read_message,
)
from payflow.services.partner_bank.rails.iso20022.read import MESSAGE_MAX_BYTES
from payflow.services.partner_bank.rails.signing import BANK_HEADER, SIGNATURE_HEADER, BankSecrets, sign, sign_answer
from tests.builders import NOON, OUR_BIC, FixedClock, new_id
from tests.builders import NORDBANK_BIC as NORDBANK
from tests.support.serving import serving

SECRET = "between these two"
REJECTED = {"status": "RJCT", "reason_code": "AC04"}
ACCEPTED = {"status": "ACSC", "reason_code": None}


@dataclass
class ScriptedAnswers:
    """A bank that says one word about everything, and signs it as it is told to.

    `signed_for` None binds the answer to the request that it answers; `signature` replaces the whole signature, and
    "" leaves it out.
    """

    word: Mapping[str, str | None] = field(default_factory=lambda: ACCEPTED)
    named: str = NORDBANK
    secret: str = SECRET
    signed_for: str | None = None
    signature: str | None = None
    padding: bytes = b""
    redirects_to: str | None = None
    names_instruction: str | None = None
    asked: list[tuple[bytes, str]] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, limit_bytes=MESSAGE_MAX_BYTES)
        request_signature = (header(scope, SIGNATURE_HEADER.encode()) or b"").decode()
        self.asked.append((body, request_signature))
        answer = self._statuses(body) + self.padding
        self.answered.append(answer)
        signature = self.signature
        if signature is None:
            bound_to = request_signature if self.signed_for is None else self.signed_for
            signature = sign_answer(answer, bank_bic=self.named, secret=self.secret, request_signature=bound_to)
        headers = [(SIGNATURE_HEADER.encode(), signature.encode())] if signature else []
        headers += [(BANK_HEADER.encode(), self.named.encode())] if self.named else []
        status = 200
        if self.redirects_to:
            status, headers = 307, [*headers, (b"location", self.redirects_to.encode())]
        await send_response(send, bytes_response(status, answer, content_type=b"application/xml", headers=headers))

    def _statuses(self, body: bytes) -> bytes:
        message = read_message(body)
        assert isinstance(message, CreditTransferMessage | StatusRequestMessage)
        statuses = [
            TransactionStatus(None, self.names_instruction, one.end_to_end_id, one.uetr, **self.word)
            for one in message.transactions
        ]
        return build_statuses(StatusMessage(Header("NB1", NOON, NORDBANK, OUR_BIC), statuses))


@dataclass
class Wire:
    """A rail and the bank at its other end."""

    rail: HttpRail
    bank: ScriptedAnswers
    agent: Agent

    async def send(self, instruction: Instruction) -> Mapping[UUID, BankWord]:
        return await self.rail.send(agent=self.agent, instructions=[instruction])

    async def enquire(self, instruction: Instruction, message_id: str = "PF2") -> Mapping[UUID, BankWord]:
        return await self.rail.enquire(agent=self.agent, instructions=[instruction], message_id=message_id)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with bank_session(2.0) as session:
        yield session


@pytest.fixture
async def wire(session: aiohttp.ClientSession) -> AsyncIterator[Wire]:
    bank = ScriptedAnswers()
    async with serving(bank, drain_s=0.1) as url:
        rail = HttpRail(
            session=session,
            own_bic=OUR_BIC,
            default_url=url,
            secrets=BankSecrets(by_bic={NORDBANK: SECRET}, for_all="of all others"),
            clock=FixedClock(),
            timeout_s=2.0,
            messages_in_flight=4,
        )
        yield Wire(rail, bank, Agent(bic=NORDBANK, name="Nordbank AG", url=url))


def an_instruction() -> Instruction:
    command = SubmitCreditTransfer(
        payment_id=new_id(),
        fencing_token=1,
        end_to_end_id=new_id().hex,
        amount_minor=1000,
        currency="EUR",
        debtor_name="Ada Byron",
        debtor_account="ACC001",
        creditor_name="Erika Musterfrau",
        creditor_account="DE08990100100000001001",
        creditor_agent=NORDBANK,
    )
    return outgoing_instruction(command, agent_bic=NORDBANK, message_id="PF1", now=NOON, enquire_at=NOON)


@pytest.mark.parametrize("named", [NORDBANK, "NORDDEFF"])
async def test_the_word_of_the_bank_that_was_asked_is_believed(wire: Wire, named: str) -> None:
    wire.bank.named = named
    instruction = an_instruction()

    sent = await wire.send(instruction)
    wire.bank.word = REJECTED
    asked = await wire.enquire(instruction)

    assert sent == {instruction.payment_id: BankWord(Word.ACCEPTED)}
    assert asked == {instruction.payment_id: BankWord(Word.REJECTED, "AC04")}


@pytest.mark.parametrize(
    ("word", "said"),
    [(REJECTED, BankWord(Word.REJECTED, "AC04")), (ACCEPTED, BankWord(Word.ACCEPTED))],
    ids=["refusal", "acceptance"],
)
async def test_a_bank_that_tells_of_its_own_payment_when_it_is_asked_about_the_return_is_not_believed(
    wire: Wire, word: dict[str, str | None], said: BankWord
) -> None:
    made = first_return(an_instruction(), reason="RR04", message_id="PFR1", now=NOON)
    wire.bank.word = word

    by_its_ids = await wire.rail.enquire_returns(agent=wire.agent, returns=[made], message_id="PF2")
    wire.bank.names_instruction = made.return_id.hex
    by_our_id = await wire.rail.enquire_returns(agent=wire.agent, returns=[made], message_id="PF3")

    assert by_its_ids == {made.return_id: SILENCE}
    assert by_our_id == {made.return_id: said}


@pytest.mark.parametrize("word", [REJECTED, ACCEPTED], ids=["refusal", "acceptance"])
@pytest.mark.parametrize(
    "forgery",
    [
        {"signature": ""},
        {"signature": "sha256=" + "0" * 64},
        {"signature": "sha256="},
        {"signature": "é"},
        {"secret": "guess"},
        {"secret": "of all others"},
        {"named": ""},
        {"named": "LUTEFRPPXXX"},
        {"named": OUR_BIC},
        {"signed_for": ""},
        {"signed_for": "sha256=" + "0" * 64},
    ],
    ids=str,
)
async def test_an_answer_that_the_bank_has_not_signed_is_never_believed(
    wire: Wire, forgery: dict[str, str], word: Mapping[str, str | None]
) -> None:
    wire.bank.word = word
    for name, value in forgery.items():
        setattr(wire.bank, name, value)
    instruction = an_instruction()

    with structlog.testing.capture_logs() as logs:
        words = [await wire.send(instruction), await wire.enquire(instruction)]

    complaints = [(line["log_level"], line["agent"]) for line in logs if line["event"] == "bank.answer_not_signed"]
    assert len(wire.bank.asked) == 2
    assert words == [{}, {}]
    assert complaints == [("error", NORDBANK)] * 2


async def test_the_answer_to_one_payment_is_none_to_another(wire: Wire) -> None:
    first, second = an_instruction(), an_instruction()
    await wire.send(first)
    ((_, answered_signature),) = wire.bank.asked

    wire.bank.signed_for = answered_signature
    words = await wire.send(second)

    assert words == {}


async def test_an_old_answer_to_the_same_question_is_none_to_a_new_one(wire: Wire) -> None:
    instruction = an_instruction()
    await wire.enquire(instruction, "PF2")
    ((_, answered_signature),) = wire.bank.asked

    wire.bank.signed_for = answered_signature
    words = await wire.enquire(instruction, "PF3")

    assert words == {}


async def test_a_changed_answer_is_not_believed(wire: Wire) -> None:
    instruction = an_instruction()
    await wire.send(instruction)
    ((_, request_signature),) = wire.bank.asked
    (accepting,) = wire.bank.answered

    wire.bank.signature = sign_answer(accepting, bank_bic=NORDBANK, secret=SECRET, request_signature=request_signature)
    unchanged = await wire.send(instruction)
    wire.bank.padding = b"\n"
    changed = await wire.send(instruction)

    assert unchanged == {instruction.payment_id: BankWord(Word.ACCEPTED)}
    assert changed == {}


async def test_a_signed_message_of_the_bank_does_not_serve_as_an_answer(wire: Wire) -> None:
    instruction = an_instruction()
    await wire.send(instruction)
    (answer,) = wire.bank.answered

    wire.bank.signature = sign(answer, bank_bic=NORDBANK, secret=SECRET)
    words = await wire.send(instruction)

    assert words == {}


async def test_our_own_signature_sent_back_is_no_answer(wire: Wire) -> None:
    instruction = an_instruction()
    await wire.send(instruction)
    ((_, ours),) = wire.bank.asked

    wire.bank.signature = ours
    words = [await wire.send(instruction)]
    wire.bank.named = OUR_BIC
    words.append(await wire.send(instruction))

    assert words == [{}, {}]


async def test_a_redirection_is_not_followed(wire: Wire) -> None:
    wire.bank.redirects_to = "/elsewhere"

    words = await wire.send(an_instruction())

    assert words == {}
    assert len(wire.bank.asked) == 1
