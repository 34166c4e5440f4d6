"""The risk service over its in-memory store or over PostgreSQL, with a customer of a test's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from payflow.contracts.kyc import Kyc
from payflow.contracts.ofac import Ofac
from payflow.contracts.risk import Assessed, AssessmentDetail, AssessPayment, GetAssessment, Risk
from payflow.contracts.topics import PaymentChanged
from payflow.kernel.envelope import Event
from payflow.platform.rpc import in_process
from payflow.services.risk import usecases
from payflow.services.risk.api import RiskApi
from payflow.services.risk.rules import default_rules
from payflow.services.risk.store import PostgresCorrections, PostgresStore
from tests.builders import NOON, FixedClock, new_id
from tests.conftest import ConnectAs
from tests.fakes_risk import FakeCustomers, FakeRiskStore, FakeSanctions

RULES = default_rules()


class World:
    """The risk service with a customer of a test's own; `stores` stand for processes that share one database."""

    def __init__(self, stores: Sequence[Any], apply: Callable[[list[Event]], Awaitable[None]]) -> None:
        self.clock = FixedClock()
        self.sanctions = FakeSanctions()
        self.customers = FakeCustomers()
        self.store = stores[0]
        self.processes = [
            RiskApi(
                store=store,
                sanctions=in_process(Ofac, _Only(screen=self.sanctions.screen), caller="risk"),
                customers=in_process(Kyc, _Only(check=self.customers.check), caller="risk"),
                rules=RULES,
                clock=self.clock,
            )
            for store in stores
        ]
        self.confirm: Risk = in_process(Risk, self.processes[0], caller="confirm")
        self.operator: Risk = in_process(Risk, self.processes[0], caller="gateway")
        self.apply = apply
        self.customer_id = f"cust_{new_id().hex}"

    def a_payment(
        self,
        amount_minor: int = 100,
        *,
        payment_id: UUID | None = None,
        customer_id: str | None = None,
        currency: str = "USD",
        creditor: str = "ACC002",
        names: list[str] | None = None,
    ) -> AssessPayment:
        return AssessPayment(
            payment_id=payment_id or new_id(),
            customer_id=customer_id or self.customer_id,
            amount_minor=amount_minor,
            currency=currency,
            debtor="ACC001",
            creditor=creditor,
            party_names=["Ada Byron", "Grace Hopper"] if names is None else names,
        )

    async def assess(self, *commands: AssessPayment) -> list[Assessed]:
        answers = await self.confirm.assess(list(commands))
        assessed = [answer for answer in answers if isinstance(answer, Assessed)]
        assert len(assessed) == len(commands), answers
        return assessed

    async def count(self) -> int:
        """How many payments of the customer count so far, this question's own payment left out."""
        (probe,) = await self.assess(self.a_payment())
        (detail,) = await self.operator.get_assessments([GetAssessment(payment_id=probe.payment_id)])
        assert isinstance(detail, AssessmentDetail)
        await self.apply([an_outcome(probe.payment_id, "rejected")])
        return detail.payments_last_24h - 1


class _Only:
    """Some operations of a service; a call of another one fails."""

    def __init__(self, **operations: Any) -> None:
        self.__dict__.update(operations)

    def __getattr__(self, name: str) -> Any:
        async def missing(items: list[Any]) -> list[Any]:
            raise AssertionError(f"risk called {name}")

        return missing


def an_outcome(payment_id: UUID, state: str) -> Event:
    data = PaymentChanged(
        payment_id=payment_id,
        transaction_id="txn",
        customer_id="cust",
        state=state.upper(),
        path=[state.upper()],
        amount_minor=100,
        currency="USD",
        debtor_account="…C001",
        creditor_account="…C002",
        at=NOON,
    )
    return Event(
        id=new_id(),
        source="confirm",
        type=f"payment.{state}",
        subject=str(payment_id),
        version=2,
        time=NOON,
        data=msgspec.to_builtins(data),
    )


def in_memory() -> World:
    """Over the in-memory store."""
    store = FakeRiskStore()

    async def apply(events: list[Event]) -> None:
        await usecases.take_out_refused(events=events, corrections=store)

    return World([store, store], apply)


async def on_postgres(connect_as: ConnectAs) -> World:
    """Over PostgreSQL."""
    databases = [await connect_as("risk"), await connect_as("risk")]

    async def apply(events: list[Event]) -> None:
        async with databases[0].transaction() as connection:
            await usecases.take_out_refused(events=events, corrections=PostgresCorrections(connection))

    return World([PostgresStore(database=database) for database in databases], apply)
