"""One run: a world is built from a seed, has its faults, heals, comes to rest, and is judged."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from time import perf_counter, process_time
from typing import Any, Final
from uuid import UUID

from payflow.contracts.account import NewAccount, NewCustomer
from payflow.kernel.four_eyes import FourEyes
from payflow.services.account.api import AccountApi
from payflow.services.account.usecases import ledger as ledger_usecases
from payflow.services.confirm.domain import Deadlines, ReturnDeadlines
from payflow.services.confirm.ports import Ports, ReturnPorts
from tests.simulation.checks import Judge
from tests.simulation.checks_returns import ReturnsJudge
from tests.simulation.customers import Customers, Town
from tests.simulation.doors import OpenDoor, SimulatedDoor
from tests.simulation.ledger import LedgerTables, MemoryLedger
from tests.simulation.loop import SimulatedLoop, SimulationStuck
from tests.simulation.nodes import BEGIN, LATE_MAX_S, SKEW_MAX_S, Life, Link, Node, SimulatedIds
from tests.simulation.officers import Officers
from tests.simulation.payments import MemoryPayments, PaymentTables
from tests.simulation.processes import ConfirmProcess, NobodyWaits, again_and_again
from tests.simulation.returns import MemoryReturns, ReturnTables
from tests.simulation.services import LISTED, Banks, Instruction, OtherBank, Otp, PartnerBank, Risk
from tests.simulation.weather import Broken, Trace, Weather, World

PAYMENTS: Final = 12_000
# As in production, only shorter where nothing but a long wait would be simulated.
DEADLINES: Final = Deadlines(
    otp=timedelta(seconds=90),
    review=timedelta(seconds=150),
    hold_grace=timedelta(seconds=90),
    execute_ahead=timedelta(days=1),
    execute_late=timedelta(seconds=120),
)
RETURN_DEADLINES: Final = ReturnDeadlines(
    approval=timedelta(seconds=90), review=timedelta(seconds=150), late=timedelta(seconds=120)
)
FOUR_EYES: Final = FourEyes.parse("150")
LANES: Final = 8
BOOKING_TIMEOUT_S: Final = 5.0
CUSTOMERS_MAX_S: Final = 600.0
# After the last fault: the longest lease by the clock that is most ahead, one enquiry, and the last late message.
QUIET_AFTER_S: Final = SKEW_MAX_S + LATE_MAX_S + 60.0
DEADLINES_AFTER_S: Final = 420.0


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a world is built of. A test that plants a mistake exchanges one of them."""

    payment_tables: Callable[[], PaymentTables] = PaymentTables
    payments: Callable[[PaymentTables, SimulatedDoor], MemoryPayments] = MemoryPayments
    return_tables: Callable[[], ReturnTables] = ReturnTables
    returns: Callable[[ReturnTables, SimulatedDoor], MemoryReturns] = MemoryReturns
    four_eyes: FourEyes = FOUR_EYES
    ledger_tables: Callable[[SimulatedIds], LedgerTables] = LedgerTables
    ledger: Callable[[LedgerTables, SimulatedDoor], MemoryLedger] = MemoryLedger
    account: Callable[..., Any] = AccountApi
    ports: Callable[[Ports, Life], Ports] = lambda ports, life: ports


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to."""

    seed: int
    payments: int
    real_s: float
    cpu_s: float
    simulated_s: float
    faults: Counter[str]
    ends: Counter[str]
    broken: list[Broken]
    trace: Trace
    transaction_of: dict[UUID, str] = field(default_factory=dict)

    def story(self, lines_max: int = 60) -> str:
        """The last that happened around the first payment with which a rule was broken."""
        payment_id = next((one.payment_id for one in self.broken if one.payment_id is not None), None)
        if payment_id is None:
            return ""
        return "\n".join(self.trace.about(payment_id, self.transaction_of.get(payment_id))[-lines_max:])


class Simulation:
    """All processes of one run, and what they share."""

    def __init__(self, seed: int, *, payments: int, parts: Parts) -> None:
        chance = Random(seed)
        self._chance = chance
        self.world = World(loop=SimulatedLoop(chance), chance=chance, weather=Weather.drawn(chance))
        ids = SimulatedIds(self.world)
        self._parts, self._ids = parts, ids
        self.returns = parts.return_tables()
        self.payments, self.ledger = parts.payment_tables(), parts.ledger_tables(ids)
        self._risk, self._otp, self._books = Risk(self.world), Otp(self.world), OtherBank(self.world)
        self._instructions: dict[UUID, Instruction] = {}
        self._due_check_s = 0.5 + 2 * chance.random()
        self._is_healed = False

        self._risk_node = self._node("risk", lambda life: self._risk)
        self._otp_node = self._node("otp", lambda life: self._otp)
        self._account = [self._node(f"account-{n}", self._build_account) for n in range(1, chance.choice((2, 3)))]
        self._bank = self._node("bank", self._build_bank)
        self._confirm = [self._node(f"confirm-{n}", self._build_confirm) for n in range(1, chance.choice((3, 4)))]
        self._outside = self._node("outside", lambda life: None)
        for node in (self._risk_node, self._otp_node, self._outside):
            node.start()
        self.town = Town()
        self.customers = Customers(
            life=self._outside.life,
            town=self.town,
            payments=payments,
            confirm=Link(self._outside.life, self._confirm, timeout_s=10),
            risk=self._risk,
        )
        self.officers = Officers(
            life=self._outside.life,
            confirm=Link(self._outside.life, self._confirm, timeout_s=10),
            risk=self._risk,
            decided=self.customers.decided,
        )
        self.customers.on_paid = self.officers.hear_of
        self.judge = Judge(
            world=self.world,
            payments=self.payments,
            ledger=self.ledger,
            risk=self._risk,
            otp=self._otp,
            books=self._books,
            instructions=self._instructions,
            customers=self.customers,
            returns=ReturnsJudge(
                world=self.world,
                payments=self.payments,
                returns=self.returns,
                risk=self._risk,
                officers=self.officers,
                decided=self.customers.decided,
                four_eyes=FOUR_EYES,
            ),
        )
        self.ledger.on_release = self.judge.check_release

    def _node(self, name: str, build: Callable[[Life], Any]) -> Node:
        return Node(name, self.world, build)

    def _build_confirm(self, life: Life) -> ConfirmProcess:
        ports = Ports(
            store=self._parts.payments(self.payments, SimulatedDoor(life)),
            account=Link(life, self._account, timeout_s=BOOKING_TIMEOUT_S),
            risk=Link(life, [self._risk_node], timeout_s=BOOKING_TIMEOUT_S),
            otp=Link(life, [self._otp_node], timeout_s=BOOKING_TIMEOUT_S),
            bank=Link(life, [self._bank], timeout_s=BOOKING_TIMEOUT_S),
            clock=life.node,
            ids=self._ids,
            deadlines=DEADLINES,
            endings=NobodyWaits(),
        )
        ports = self._parts.ports(ports, life)
        returns = ReturnPorts(
            returns=self._parts.returns(self.returns, SimulatedDoor(life)),
            payments=ports.store,
            account=ports.account,
            risk=ports.risk,
            clock=life.node,
            ids=self._ids,
            deadlines=RETURN_DEADLINES,
            four_eyes=self._parts.four_eyes,
        )
        process = ConfirmProcess(life=life, ports=ports, returns=returns)
        self._duty(life, process.do_what_is_due, often_s=self._due_check_s)
        # Returns are few: looking for them as often as for payments would be most of what is simulated.
        self._duty(life, process.do_due_returns, often_s=4 * self._due_check_s)
        return process

    def _build_account(self, life: Life) -> Any:
        store = self._parts.ledger(self.ledger, SimulatedDoor(life))

        async def expire_holds() -> None:
            await ledger_usecases.expire_holds(store=store, now=life.node.now())

        self._duty(life, expire_holds, often_s=5)
        return self._parts.account(store=store, banks=Banks(), clock=life.node, ids=self._ids)

    def _build_bank(self, life: Life) -> PartnerBank:
        confirm = Link(life, self._confirm, timeout_s=10)
        return PartnerBank(life, books=self._books, instructions=self._instructions, confirm=confirm)

    def _duty(self, life: Life, duty: Callable[[], Any], *, often_s: float) -> None:
        """A duty of a process; once all have come to rest, more seldom, for nothing but time passes then."""

        def pause_s() -> float:
            return 10.0 if self._is_healed and self._is_done else often_s

        life.spawn(again_and_again(life, duty, pause_s=pause_s), about=duty.__name__)

    @property
    def _is_done(self) -> bool:
        return self.customers.is_done and self.officers.is_done

    async def run(self) -> None:
        """The whole story."""
        await self._open_accounts()
        everybody = [*self._account, self._bank, *self._confirm]
        for node in everybody:
            node.start()
        outside, random = self._outside.life, self._chance.random
        for node in everybody:
            outside.spawn(self._bad_luck(node), about="bad luck")
        self.customers.open_lanes(LANES)
        await outside.pause(20 + 100 * random())
        self._heal(everybody)
        begun = self.world.loop.time()
        while not self._is_done and self.world.loop.time() < begun + CUSTOMERS_MAX_S:
            await outside.pause(1)
        if not self._is_done:
            self.world.break_("customers or officers still wait for an answer")
        await outside.pause(QUIET_AFTER_S)
        self.judge.check_quiet()
        await outside.pause(DEADLINES_AFTER_S)
        self.judge.check_end()

    async def _open_accounts(self) -> None:
        """Rich and poor customers, two whom everybody pays, and one on a list."""
        api = AccountApi(store=MemoryLedger(self.ledger, OpenDoor()), banks=Banks(), clock=self._outside, ids=self._ids)
        chance, town = self._chance, self.town
        names = [LISTED, *(f"Customer {number}" for number in range(chance.choice((4, 40, 400))))]
        customers, accounts = [], []
        for number, name in enumerate(names):
            customer_id, account = f"customer-{number}", f"A{number}"
            customers.append(NewCustomer(customer_id=customer_id, name=name, country="DE"))
            balance = 40_000 if chance.random() < 0.04 else 2_000_000_000
            accounts.append(
                NewAccount(number=account, customer_id=customer_id, currency="EUR", opening_balance_minor=balance)
            )
            town.debtors.append((customer_id, account))
            town.creditors.append(account)
        town.listed = town.creditors[0]
        town.debtors += town.debtors[1:3] * (len(names) // 2)
        town.creditors += town.creditors[1:3] * (len(names) // 2)
        await api.create_customers(customers)
        await api.create_accounts(accounts)

    async def _bad_luck(self, node: Node) -> None:
        """A process dies and is started again, is stopped and goes on, or its clock is set."""
        world, pause, random = self.world, self._outside.life.pause, self._chance.random
        while True:
            await pause(3 + 8 * random())
            if self._is_healed:
                return
            if world.happens("crash"):
                node.crash()
                await pause(15 * random() ** 2)
                self._bring_back(node)
            elif world.happens("stop"):
                node.stop()
                await pause(90 * random() ** 2)
                node.go_on()
            elif world.happens("clock_step"):
                node.skew_s = SKEW_MAX_S * (2 * random() - 1)
                world.note(f"{node.name}'s clock is set to {node.skew_s:+.3f} s")

    def _heal(self, nodes: list[Node]) -> None:
        self.world.note("the last fault is over")
        self._is_healed = True
        self.world.weather.clear()
        for node in nodes:
            node.go_on()
            node.skew_s = 0.0
            self._bring_back(node)

    def _bring_back(self, node: Node) -> None:
        if node.is_down:
            node.start()


def simulate(seed: int, *, payments: int = PAYMENTS, parts: Parts | None = None) -> Result:
    """One run from a seed, judged. The same seed, size and code give the same run, step by step."""
    begun, cpu_begun = perf_counter(), process_time()
    collects = gc.isenabled()
    # A run makes much and frees little: looking for cycles meanwhile would be a third of its time.
    gc.disable()
    try:
        simulation = Simulation(seed, payments=payments, parts=parts or Parts())
        world = simulation.world
        try:
            world.loop.run(simulation.run())
        except SimulationStuck as stuck:
            world.break_(str(stuck))
        for text in world.loop.unhandled:
            world.break_(text)
    finally:
        if collects:
            gc.enable()
    stored = simulation.payments.payments
    return Result(
        seed=seed,
        payments=len(stored),
        real_s=perf_counter() - begun,
        cpu_s=process_time() - cpu_begun,
        simulated_s=world.loop.time(),
        faults=world.faults,
        ends=Counter(payment.state.value for payment in stored.values())
        + Counter(f"RETURN {made.state.value}" for made in simulation.returns.returns.values()),
        broken=world.broken,
        trace=world.trace,
        transaction_of={id: payment.transaction_id for id, payment in stored.items()} if world.broken else {},
    )


__all__ = ["BEGIN", "PAYMENTS", "Parts", "Result", "Simulation", "simulate"]
