"""One suite for the partner_bank service over its in-memory store and over PostgreSQL, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import asyncpg
import msgspec
import pytest

from payflow.contracts.account import (
    Account,
    AccountState,
    ChangeAccountState,
    GetAccount,
    NewAccount,
    NewCustomer,
    StaleCommand,
)
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.contracts.confirm import Confirm, PaymentInProgress, PaymentNotFound
from payflow.contracts.ofac import Ofac
from payflow.contracts.partner_bank import (
    BankStatus,
    EndToEndIdTaken,
    Enquire,
    InstructionNotFound,
    InvalidInstruction,
    ListInstructions,
    PartnerBank,
    SubmissionStatus,
    SubmitCreditTransfer,
    UnknownAgent,
)
from payflow.kernel.envelope import Event
from payflow.kernel.errors import Unavailable
from payflow.kernel.money import InvalidAmount
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.partner_bank.api import InboundApi, PartnerBankApi
from payflow.services.partner_bank.domain import (
    BankWord,
    IncomingTransfer,
    Parties,
    Pauses,
    Status,
    Verdict,
    Word,
    incoming_payment_id,
)
from payflow.services.partner_bank.store import PostgresStore
from payflow.services.partner_bank.usecases.incoming import Settlement
from tests.builders import FixedClock, new_id
from tests.fakes import FakeAccountStore
from tests.fakes_partner_bank import FakeStore, InMemoryConfirm, InMemoryOfac, ScriptedBank

ERIKA = "DE08990100100000001001"
NORDBANK = "NORDDEFFXXX"


class World:
    """The partner_bank service, with a scripted bank on the other side and the services beside it in memory."""

    def __init__(self, store: FakeStore | PostgresStore, events: Callable[[], Awaitable[list[Event]]]) -> None:
        self.store = store
        self.events = events
        self.clock = FixedClock()
        self.bank = ScriptedBank()
        self.ofac = InMemoryOfac()
        self.confirm = InMemoryConfirm()
        self.pauses = Pauses(first_s=0.5, longest_s=30.0, repeat_answer_after_s=5.0)
        agents = AgentDirectory(read_agents(DEMO_AGENTS))
        self.api = PartnerBankApi(
            store=store,
            rail=self.bank,
            agents=agents,
            confirm=in_process(Confirm, self.confirm, caller="partner_bank"),
            clock=self.clock,
            ids=UuidV7(),
            pauses=self.pauses,
            bank_timeout_s=2.0,
        )
        account_api = AccountApi(
            store=FakeAccountStore(), banks=ConfiguredBanks(agents), clock=self.clock, ids=UuidV7()
        )
        self.operator: Account = in_process(Account, account_api, caller="gateway")
        settlement = Settlement(
            store=store,
            account=in_process(Account, account_api, caller="partner_bank"),
            ofac=in_process(Ofac, self.ofac, caller="partner_bank"),
            ids=UuidV7(),
            clock=self.clock,
            pauses=self.pauses,
            source="partner_bank",
        )
        self.inbound = InboundApi(
            store=store, settlement=settlement, own_bic="PAYFDEFFXXX", clock=self.clock, pauses=self.pauses
        )
        self.client: PartnerBank = in_process(PartnerBank, self.api, caller="confirm")
        self.cli: PartnerBank = in_process(PartnerBank, self.api, caller="cli")

    async def submit(self, *commands: SubmitCreditTransfer) -> list[object]:
        return list(await self.client.submit(list(commands)))

    async def receive(self, *transfers: IncomingTransfer) -> list[Verdict]:
        return await self.inbound.receive(transfers, agent_bic=NORDBANK, message_id="NB1")

    async def account(self, *, currency: str = "EUR") -> str:
        customer_id, number = f"cust_{new_id().hex}", f"A{new_id().hex[-20:]}"
        await self.operator.create_customers([NewCustomer(customer_id=customer_id, name="Ada Byron")])
        await self.operator.create_accounts([NewAccount(number=number, customer_id=customer_id, currency=currency)])
        return number

    async def posted(self, number: str) -> int:
        (view,) = await self.operator.get_accounts([GetAccount(number=number)])
        return view.posted_minor  # type: ignore[union-attr]

    async def events_of(self, transfer: IncomingTransfer) -> list[str]:
        subject = str(incoming_payment_id(agent_bic=NORDBANK, end_to_end_id=transfer.end_to_end_id))
        return [event.type for event in await self.events() if event.subject == subject]


@pytest.fixture
async def postgres_world(
    connect_as: Callable[[str], Awaitable[Database]], database_url: str, cipher: ColumnCipher
) -> World:
    database = await connect_as("partner_bank")

    async def events() -> list[Event]:
        owner = await asyncpg.connect(database_url)
        rows = await owner.fetch("SELECT events FROM event_log.batch ORDER BY id")
        await owner.close()
        return [event for row in rows for event in msgspec.msgpack.decode(row["events"], type=list[Event])]

    return World(PostgresStore(database=database, cipher=cipher, outbox=Outbox(database)), events)


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, postgres_world: World) -> World:
    if request.param == "postgres":
        return postgres_world
    fake = FakeStore()
    return World(fake, fake.events)


def a_submission(
    *,
    payment_id: UUID | None = None,
    token: int = 1,
    end_to_end_id: str | None = None,
    amount_minor: int = 1000,
    agent: str = NORDBANK,
) -> SubmitCreditTransfer:
    payment_id = payment_id or new_id()
    return SubmitCreditTransfer(
        payment_id=payment_id,
        fencing_token=token,
        end_to_end_id=end_to_end_id or payment_id.hex,
        amount_minor=amount_minor,
        currency="EUR",
        debtor_name="Ada Byron",
        debtor_account="ACC001",
        creditor_name="Erika Musterfrau",
        creditor_account=ERIKA,
        creditor_agent=agent,
        remittance_information="Invoice 7",
    )


def an_incoming(
    to_account: str,
    *,
    amount: str = "25.00",
    currency: str = "EUR",
    end_to_end_id: str | None = None,
    debtor_name: str | None = "Erika Musterfrau",
    uetr: str | None = None,
) -> IncomingTransfer:
    return IncomingTransfer(
        end_to_end_id=end_to_end_id or new_id().hex,
        instruction_id=None,
        uetr=uetr,
        amount=amount,
        currency=currency,
        creditor_agent_bic="PAYFDEFFXXX",
        parties=Parties(
            debtor_name=debtor_name, debtor_account=ERIKA, creditor_name="Ada Byron", creditor_account=to_account
        ),
    )


def status_of(answer: object) -> tuple[BankStatus, str | None]:
    assert isinstance(answer, SubmissionStatus), answer
    return answer.status, answer.reason_code


async def test_an_accepted_payment_is_told_and_told_again_without_asking_the_bank(world: World) -> None:
    command = a_submission()

    (first,) = await world.submit(command)
    (again,) = await world.submit(command)

    assert status_of(first) == (BankStatus.ACCEPTED, None)
    assert again == first
    assert len(world.bank.messages) == 1
    assert world.bank.enquiries == []


async def test_a_rejected_payment_carries_the_banks_reason(world: World) -> None:
    world.bank.word = BankWord(Word.REJECTED, "AC04")

    (answer,) = await world.submit(a_submission())

    assert status_of(answer) == (BankStatus.REJECTED, "AC04")


async def test_a_batch_travels_as_one_message_for_each_bank(world: World) -> None:
    nord = [a_submission() for _ in range(3)]
    lutece = a_submission(agent="LUTEFRPPXXX")

    answers = await world.submit(nord[0], lutece, nord[1], nord[2])

    assert [status_of(answer)[0] for answer in answers] == [BankStatus.ACCEPTED] * 4
    assert sorted(len(message) for message in world.bank.messages) == [1, 3]


async def test_the_instruction_is_stored_before_anything_is_sent(world: World) -> None:
    command = a_submission()
    seen: list[str] = []
    send = world.bank.send

    async def look_then_send(**arguments: object) -> object:
        known = await world.store.find([command.payment_id])
        seen.append(known[command.payment_id].status)
        return await send(**arguments)  # type: ignore[arg-type]

    world.bank.send = look_then_send  # type: ignore[assignment]

    await world.submit(command)

    assert seen == ["UNKNOWN"]


async def test_a_repeat_without_an_answer_enquires_and_sends_nothing(world: World) -> None:
    command = a_submission()
    world.bank.answers = False
    (first,) = await world.submit(command)
    world.bank.answers = True

    (second,) = await world.submit(command)

    assert status_of(first) == (BankStatus.UNKNOWN, None)
    assert status_of(second) == (BankStatus.ACCEPTED, None)
    assert len(world.bank.messages) == 1
    assert world.bank.enquiries == [[command.payment_id]]


async def test_what_the_bank_never_received_is_sent_again_under_the_same_ids(world: World) -> None:
    command = a_submission()
    world.bank.receives = False
    await world.submit(command)
    (stored,) = (await world.store.find([command.payment_id])).values()
    world.bank.receives = True

    (answer,) = await world.submit(command)

    assert status_of(answer) == (BankStatus.ACCEPTED, None)
    assert len(world.bank.messages) == 2
    ids = (stored.message_id, stored.instruction_id, stored.uetr)
    assert world.bank.received[command.end_to_end_id] == [ids]


async def test_the_same_payment_twice_in_one_batch_is_sent_once(world: World) -> None:
    command = a_submission()

    answers = await world.submit(command, command)

    assert answers[0] == answers[1]
    assert world.bank.messages == [[command.payment_id]]


async def test_twenty_concurrent_repeats_reach_the_bank_under_one_set_of_ids(world: World) -> None:
    command = a_submission()

    answers = await asyncio.gather(*(world.api.submit([command]) for _ in range(20)))

    assert {status_of(answer)[0] for (answer,) in answers} <= {BankStatus.ACCEPTED, BankStatus.UNKNOWN}
    assert len(set(world.bank.received[command.end_to_end_id])) == 1
    assert status_of((await world.submit(command))[0])[0] is BankStatus.ACCEPTED


async def test_a_lower_fencing_token_is_refused_and_a_higher_one_is_kept(world: World) -> None:
    command = a_submission(token=5)
    await world.submit(command)

    answers = [
        *await world.submit(a_submission(payment_id=command.payment_id, token=4)),
        *await world.submit(a_submission(payment_id=command.payment_id, token=9)),
        *await world.submit(a_submission(payment_id=command.payment_id, token=8)),
    ]

    assert isinstance(answers[0], StaleCommand)
    assert status_of(answers[1]) == (BankStatus.ACCEPTED, None)
    assert isinstance(answers[2], StaleCommand)


async def test_an_end_to_end_id_belongs_to_one_payment_of_a_bank(world: World) -> None:
    first = a_submission()
    await world.submit(first)

    answers = await world.submit(
        a_submission(end_to_end_id=first.end_to_end_id),
        a_submission(end_to_end_id=first.end_to_end_id, agent="LUTEFRPPXXX"),
    )

    assert isinstance(answers[0], EndToEndIdTaken)
    assert status_of(answers[1]) == (BankStatus.ACCEPTED, None)


async def test_an_unknown_bank_is_refused_for_good_and_nothing_is_sent(world: World) -> None:
    command = a_submission(agent="NOSUDEFFXXX")

    answers = [*await world.submit(command), *await world.submit(command)]

    assert [type(answer) for answer in answers] == [UnknownAgent, UnknownAgent]
    assert world.bank.messages == []


async def test_what_cannot_be_told_to_a_bank_is_refused_alone(world: World) -> None:
    answers = await world.submit(
        a_submission(amount_minor=0),
        a_submission(end_to_end_id="x" * 36),
        a_submission(end_to_end_id="é"),
        a_submission(),
    )

    assert [type(answer) for answer in answers] == [
        InvalidAmount,
        InvalidInstruction,
        InvalidInstruction,
        SubmissionStatus,
    ]


async def test_an_enquiry_learns_the_word_and_an_unknown_payment_has_no_instruction(world: World) -> None:
    command = a_submission()
    world.bank.answers = False
    await world.submit(command)
    world.bank.answers = True

    answers = await world.cli.enquire([Enquire(payment_id=command.payment_id), Enquire(payment_id=new_id())])

    assert status_of(answers[0]) == (BankStatus.ACCEPTED, None)
    assert isinstance(answers[1], InstructionNotFound)


async def test_the_first_word_stays_whatever_the_bank_says_later(world: World) -> None:
    command = a_submission()
    await world.submit(command)
    world.bank.word = BankWord(Word.REJECTED, "AC01")

    (answer,) = await world.cli.enquire([Enquire(payment_id=command.payment_id)])

    assert status_of(answer) == (BankStatus.ACCEPTED, None)


async def test_the_duty_enquires_with_growing_pauses_and_tells_confirm_the_answer_once(world: World) -> None:
    command = a_submission()
    world.bank.answers = False
    await world.submit(command)
    asked_at: list[float] = []

    for step in range(100):
        before = len(world.bank.enquiries)
        await world.api.enquire_unknown()
        if any(command.payment_id in asked for asked in world.bank.enquiries[before:]):
            asked_at.append(step * 0.5)
        world.clock.move(timedelta(seconds=0.5))
    world.bank.answers = True
    world.clock.move(timedelta(seconds=30))
    await world.api.enquire_unknown()
    await world.api.deliver_answers()
    world.clock.move(timedelta(seconds=60))
    await world.api.deliver_answers()

    assert asked_at == [2.5, 3.0, 4.0, 6.0, 10.0, 18.0, 34.0]
    told = [answer for answer in world.confirm.told if answer.payment_id == command.payment_id]
    assert [(answer.is_accepted, answer.reason_code) for answer in told] == [(True, None)]


async def test_confirm_is_told_until_it_has_heard(world: World) -> None:
    command = a_submission()
    world.bank.word = BankWord(Word.REJECTED, "AC06")
    await world.submit(command)

    for failure in (Unavailable("away"), PaymentInProgress("busy"), None):
        world.confirm.failure = failure
        world.clock.move(timedelta(seconds=31))
        await world.api.deliver_answers()
    world.clock.move(timedelta(seconds=31))
    await world.api.deliver_answers()

    told = [answer for answer in world.confirm.told if answer.payment_id == command.payment_id]
    assert [(answer.is_accepted, answer.reason_code) for answer in told] == [(False, "AC06")]


async def test_an_answer_that_confirm_refuses_for_good_is_not_told_for_ever(world: World) -> None:
    command = a_submission()
    await world.submit(command)
    world.confirm.failure = PaymentNotFound()
    world.clock.move(timedelta(seconds=6))
    await world.api.deliver_answers()
    world.confirm.failure = None

    world.clock.move(timedelta(seconds=60))
    await world.api.deliver_answers()

    assert command.payment_id not in {answer.payment_id for answer in world.confirm.told}


async def test_instructions_are_listed_newest_first_page_by_page(world: World) -> None:
    world.clock.move(timedelta(days=new_id().int % 1000))
    commands = [a_submission() for _ in range(3)]
    for command in commands:
        world.clock.move(timedelta(seconds=1))
        await world.submit(command)

    (first,) = await world.cli.list_instructions([ListInstructions(direction="OUTGOING", limit=2)])
    assert not isinstance(first, Exception)
    (second,) = await world.cli.list_instructions(
        [ListInstructions(direction="OUTGOING", status="ACCEPTED", cursor=first.next_cursor, limit=1)]
    )

    newest = [view.payment_id for view in [*first.instructions, *second.instructions]]  # type: ignore[union-attr]
    assert newest == [command.payment_id for command in reversed(commands)]


async def test_money_that_comes_in_is_screened_credited_once_and_announced_once(world: World) -> None:
    number = await world.account()
    transfer = an_incoming(number)

    verdicts = [await world.receive(transfer) for _ in range(3)]

    assert verdicts == [[Verdict("ACSC")]] * 3
    assert await world.posted(number) == 2500
    assert await world.events_of(transfer) == ["incoming.credited"]
    assert world.ofac.screened[-1].names == ["Erika Musterfrau", "Ada Byron"]


async def test_the_same_message_from_many_connections_is_credited_once(world: World) -> None:
    number = await world.account()
    transfer = an_incoming(number)

    await asyncio.gather(*(world.receive(transfer, transfer) for _ in range(8)))

    assert await world.receive(transfer) == [Verdict("ACSC")]
    assert await world.posted(number) == 2500
    assert await world.events_of(transfer) == ["incoming.credited"]


async def test_while_one_process_works_on_a_payment_the_others_say_pending(world: World) -> None:
    number, gate = await world.account(), asyncio.Event()
    world.ofac.gates = [gate]
    transfer = an_incoming(number)
    first = asyncio.create_task(world.receive(transfer))
    await world.ofac.called.wait()

    meanwhile = await world.receive(transfer)
    gate.set()

    assert meanwhile == [Verdict("PDNG")]
    assert await first == [Verdict("ACSC")]
    assert len(world.ofac.screened) == 1


async def test_a_process_that_was_overtaken_changes_and_announces_nothing(world: World) -> None:
    number, gate = await world.account(), asyncio.Event()
    world.ofac.gates = [gate]
    transfer = an_incoming(number)
    overtaken = asyncio.create_task(world.receive(transfer))
    await world.ofac.called.wait()
    world.clock.move(timedelta(minutes=1))

    overtaking = await world.receive(transfer)
    gate.set()

    assert overtaking == [Verdict("ACSC")]
    assert await overtaken == [Verdict("ACSC")]
    assert await world.posted(number) == 2500
    assert await world.events_of(transfer) == ["incoming.credited"]


async def test_other_contents_under_a_known_end_to_end_id_are_refused_as_a_duplicate(world: World) -> None:
    number = await world.account()
    transfer = an_incoming(number, uetr="8a562c67-ca16-48ba-b074-65581be6f011")
    await world.receive(transfer)

    verdicts = await world.receive(
        an_incoming(number, end_to_end_id=transfer.end_to_end_id, amount="26.00"),
        an_incoming(number, end_to_end_id=transfer.end_to_end_id, uetr="9a562c67-ca16-48ba-b074-65581be6f011"),
    )

    assert verdicts == [Verdict("RJCT", "AM05")] * 2
    assert await world.posted(number) == 2500


async def test_a_possible_match_goes_to_suspense_and_not_to_the_account(world: World) -> None:
    number = await world.account()
    world.ofac.listed = {"Listed Person"}
    transfer = an_incoming(number, debtor_name="Listed Person")

    verdicts = await world.receive(transfer)
    world.ofac.listed = set()

    assert verdicts == [Verdict("ACWP")]
    assert await world.receive(transfer) == [Verdict("ACWP")]
    assert await world.posted(number) == 0
    assert await world.events_of(transfer) == ["incoming.held_in_suspense"]


async def test_each_refusal_has_its_iso_reason_and_moves_nothing(world: World) -> None:
    euros, yen = await world.account(), await world.account(currency="JPY")
    blocked = await world.account()
    await world.operator.change_account_state(
        [ChangeAccountState(number=blocked, state=AccountState.BLOCKED, reason="test", changed_by="op")]
    )

    verdicts = await world.receive(
        an_incoming("NOSUCHACCOUNT"),
        an_incoming(blocked),
        an_incoming(yen),
        an_incoming(euros, amount="1.001"),
        an_incoming(euros, amount="0.00"),
        an_incoming(euros, currency="XXX"),
        an_incoming(euros, debtor_name=None),
        an_incoming(euros, end_to_end_id="NOTPROVIDED"),
        an_incoming(euros),
    )

    assert [(verdict.status, verdict.reason_code) for verdict in verdicts] == [
        ("RJCT", "AC01"),
        ("RJCT", "AC06"),
        ("RJCT", "AM03"),
        ("RJCT", "AM12"),
        ("RJCT", "AM12"),
        ("RJCT", "AM11"),
        ("RJCT", "BE08"),
        ("RJCT", "DU04"),
        ("ACSC", None),
    ]
    assert await world.posted(euros) == 2500


async def test_a_refusal_stays_also_when_the_account_is_opened_later(world: World) -> None:
    number = await world.account()
    change = ChangeAccountState(number=number, state=AccountState.BLOCKED, reason="test", changed_by="op")
    await world.operator.change_account_state([change])
    transfer = an_incoming(number)
    await world.receive(transfer)
    await world.operator.change_account_state(
        [ChangeAccountState(number=number, state=AccountState.OPEN, reason="test", changed_by="op")]
    )

    verdicts = await world.receive(transfer)

    assert verdicts == [Verdict("RJCT", "AC06")]
    assert await world.posted(number) == 0


async def test_without_screening_the_payment_is_pending_and_settled_by_the_enquiry_later(world: World) -> None:
    number = await world.account()
    world.ofac.failure = Unavailable("away")
    transfer = an_incoming(number)

    pending = await world.receive(transfer)
    world.ofac.failure = None
    world.clock.move(timedelta(seconds=1))
    settled = await world.inbound.answer_enquiry([transfer.end_to_end_id, "never-sent"], agent_bic=NORDBANK)

    assert pending == [Verdict("PDNG")]
    assert settled == [Verdict("ACSC"), Verdict("RJCT", "AG09")]
    assert await world.posted(number) == 2500


async def test_a_pending_payment_is_settled_by_the_duty_when_nobody_asks(world: World) -> None:
    number = await world.account()
    world.ofac.failure = Unavailable("away")
    transfer = an_incoming(number)
    await world.receive(transfer)
    world.ofac.failure = None
    world.clock.move(timedelta(seconds=1))

    await world.inbound.settle_pending()

    assert await world.posted(number) == 2500
    assert await world.events_of(transfer) == ["incoming.credited"]


async def test_another_bank_cannot_learn_of_a_payment_that_it_did_not_send(world: World) -> None:
    number = await world.account()
    transfer = an_incoming(number)
    await world.receive(transfer)

    verdicts = await world.inbound.answer_enquiry([transfer.end_to_end_id], agent_bic="LUTEFRPPXXX")

    assert verdicts == [Verdict("RJCT", "AG09")]


async def test_names_and_accounts_are_not_readable_in_the_table(postgres_world: World, database_url: str) -> None:
    command = a_submission()
    await postgres_world.submit(command)
    owner = await asyncpg.connect(database_url)

    row = await owner.fetchval(
        "SELECT encode(parties_encrypted, 'escape') || instruction::text FROM partner_bank.instruction "
        "WHERE payment_id = $1",
        command.payment_id,
    )
    await owner.close()

    assert command.end_to_end_id in row
    assert "Musterfrau" not in row
    assert ERIKA not in row


async def test_a_final_status_is_never_left_even_by_a_bug(world: World) -> None:
    command = a_submission()
    await world.submit(command)

    async with world.store.transaction() as book:
        (known,) = (await book.lock([command.payment_id])).values()
        await book.save([replace(known, status=Status.REJECTED, reason_code="MS03")])

    assert status_of((await world.submit(command))[0]) == (BankStatus.ACCEPTED, None)
