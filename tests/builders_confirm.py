"""Confirm with everything around it in memory, over its store in memory or in PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from payflow.contracts.account import (
    Account,
    AccountView,
    GetAccount,
    NewAccount,
    NewCustomer,
)
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.contracts.confirm import (
    AwaitEnd,
    Confirm,
    ConfirmPayment,
    PaymentState,
    PaymentView,
    SendCode,
)
from payflow.contracts.otp import Otp
from payflow.contracts.partner_bank import PartnerBank
from payflow.contracts.returns import Returns
from payflow.contracts.risk import Risk
from payflow.kernel.errors import PayflowError
from payflow.kernel.four_eyes import FourEyes
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.confirm.api import ConfirmApi, LocalEndings, SettleInBackground
from payflow.services.confirm.domain import Deadlines, Payment, ReturnDeadlines
from payflow.services.confirm.ports import Ports, ReturnPorts, ReturnStore, Store
from payflow.services.confirm.return_api import ReturnsApi
from payflow.services.confirm.return_store import PostgresReturns
from payflow.services.confirm.store import PostgresStore
from payflow.services.confirm.usecases.lifecycle import do_what_is_due
from tests.builders import NOON, FixedClock, new_id
from tests.fakes import FakeAccountStore
from tests.fakes_confirm import FakeBank, FakeConfirmStore, FakeOtp, FakeRisk
from tests.fakes_returns import FakeReturnStore

IBAN = "DE08990100100000001001"


class World:
    """Confirm with a ledger, a risk, an otp and another bank around it; two customers with money."""

    def __init__(self, store: Store, return_store: ReturnStore | None = None) -> None:
        self.store, self.clock = store, FixedClock()
        self.risk, self.otp, self.bank, self.ledger = FakeRisk(), FakeOtp(), FakeBank(), FakeAccountStore()
        banks = ConfiguredBanks(AgentDirectory(read_agents(DEMO_AGENTS)))
        ids = UuidV7()
        account = AccountApi(store=self.ledger, banks=banks, clock=self.clock, ids=ids)
        self.operator: Account = in_process(Account, account, caller="gateway")
        self.ports = Ports(
            store=store,
            account=in_process(Account, account, caller="confirm"),
            risk=in_process(Risk, self.risk, caller="confirm"),
            otp=in_process(Otp, self.otp, caller="confirm"),
            bank=in_process(PartnerBank, self.bank, caller="confirm"),
            clock=self.clock,
            ids=ids,
            deadlines=Deadlines(),
            endings=LocalEndings(),
        )
        self.return_ports = ReturnPorts(
            returns=return_store or FakeReturnStore(),
            payments=store,
            account=self.ports.account,
            risk=self.ports.risk,
            clock=self.clock,
            ids=ids,
            deadlines=ReturnDeadlines(),
            four_eyes=FourEyes.parse("1000"),
        )
        self.background = SettleInBackground(self.ports)
        self.api = ConfirmApi(ports=self.ports, background=self.background, returns=self.return_ports)
        self.gateway: Confirm = in_process(Confirm, self.api, caller="gateway")
        self.returns: Returns = in_process(Returns, ReturnsApi(ports=self.return_ports), caller="gateway")
        self.customer, self.debtor, self.creditor = f"c{new_id().hex}", f"A{new_id().hex}", f"B{new_id().hex}"

    async def open_accounts(self, *, debtor_name: str = "Ada Byron") -> None:
        other = f"c{new_id().hex}"
        await self.operator.create_customers(
            [NewCustomer(customer_id=self.customer, name=debtor_name), NewCustomer(customer_id=other, name="Grace H.")]
        )
        opened = await self.operator.create_accounts(
            [
                NewAccount(
                    number=self.debtor, customer_id=self.customer, currency="USD", opening_balance_minor=10_000_000
                ),
                NewAccount(number=self.creditor, customer_id=other, currency="USD"),
                NewAccount(number=f"{self.creditor}E", customer_id=other, currency="EUR"),
            ]
        )
        assert all(isinstance(account, AccountView) for account in opened)

    def request(self, amount: str = "1000.00", *, key: str | None = None, to: str | None = None, **more: object):
        values = {
            "customer_id": self.customer,
            "idempotency_key": key or new_id().hex,
            "transaction_id": new_id().hex,
            "amount": amount,
            "currency": None,
            "debtor_account": self.debtor,
            "creditor_account": to or self.creditor,
            "traceparent": f"00-{new_id().hex}-00f067aa0ba902b7-01",
            **more,
        }
        otp = values.pop("otp", None)
        content = repr(sorted((name, value) for name, value in values.items() if name != "traceparent"))
        return ConfirmPayment(fingerprint=hashlib.sha256(content.encode()).digest(), otp=otp, **values)

    async def pay(self, request: ConfirmPayment) -> PaymentView | PayflowError:
        """As the gateway does: requests with a code go apart, and a code that is asked for is sent."""
        if request.otp is not None:
            (answer,) = await self.gateway.confirm_with_otp([request])
        else:
            (answer,) = await self.gateway.confirm([request])
        if isinstance(answer, PaymentView) and answer.state is PaymentState.AWAITING_OTP:
            (answer,) = await self.gateway.send_codes([SendCode(payment_id=answer.payment_id)])
        return answer

    async def leave_behind(self, request: ConfirmPayment) -> None:
        """Take a payment in and die before anything else is done about it."""
        self.risk.crashes = True
        with pytest.raises(RuntimeError):
            await self.pay(request)
        self.risk.crashes = False

    async def balance(self, number: str) -> tuple[int, int]:
        (view,) = await self.operator.get_accounts([GetAccount(number=number)])
        assert isinstance(view, AccountView)
        return view.posted_minor, view.held_minor

    async def end_of(self, view: PaymentView | PayflowError) -> PaymentView | PayflowError:
        assert isinstance(view, PaymentView), view
        (answer,) = await self.gateway.await_end([AwaitEnd(payment_id=view.payment_id, wait_s=0.3)])
        return answer

    async def due(self) -> int:
        return await do_what_is_due(ports=self.ports, background=self.background)


def a_payment(**more: object) -> Payment:
    """A payment that was just received: 1,000.00 USD, on-us."""
    values = {
        "payment_id": new_id(),
        "customer_id": "cust_001",
        "idempotency_key": "key",
        "fingerprint": b"",
        "transaction_id": "txn_001",
        "amount": "1000.00",
        "amount_minor": 100_000,
        "currency": "USD",
        "debtor_account": "ACC-001",
        "creditor_account": "ACC-002",
        "creditor_account_id": new_id(),
        "creditor": None,
        "remittance_information": None,
        "traceparent": "",
        "received_at": NOON,
        "updated_at": NOON,
        **more,
    }
    return Payment(**values)


def with_otp(request: ConfirmPayment, code: str) -> ConfirmPayment:
    return ConfirmPayment(**{**{name: getattr(request, name) for name in request.__struct_fields__}, "otp": code})


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> AsyncIterator[World]:
    made_returns = FakeReturnStore()
    store: Store = FakeConfirmStore(made_returns)
    returns: ReturnStore = made_returns
    if request.param == "postgres":
        database = await connect_as("confirm")
        # What other tests left due is none of this test's business.
        store = PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())
        returns = PostgresReturns(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())
        await database.execute(
            "UPDATE transactions SET state = 'EXPIRED', due_at = NULL, wake_at = NULL, error_code = 'X' "
            "WHERE due_at IS NOT NULL"
        )
        await database.execute(
            "UPDATE payment_return SET state = 'EXPIRED', due_at = NULL, error_code = 'X' WHERE due_at IS NOT NULL"
        )
    made = World(store, returns)
    await made.open_accounts()
    yield made
    await made.background.finish()
