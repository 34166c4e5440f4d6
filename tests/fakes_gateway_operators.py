"""The services behind the operators' routes: the real ones over stores in memory where there is such a store."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from payflow.contracts.account import Account
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.contracts.audit import Audit
from payflow.contracts.bulk import Bulk
from payflow.contracts.callbacks import Callbacks, Vendor
from payflow.contracts.confirm import (
    Confirm,
    DecideReview,
    ListPayments,
    PaymentNotFound,
    PaymentPage,
    PaymentState,
    PaymentView,
    TransitionView,
)
from payflow.contracts.devices import Devices
from payflow.contracts.gateway import Role
from payflow.contracts.kyc import Kyc
from payflow.contracts.notification import Notification, Webhooks
from payflow.contracts.ofac import Ofac, ScreenPayment
from payflow.contracts.operation import Answers
from payflow.contracts.partner_bank import (
    BankStatus,
    EndReturn,
    Enquire,
    InstructionNotFound,
    InstructionPage,
    InstructionView,
    ListInstructions,
    PartnerBank,
    ReturnEnding,
    SubmissionStatus,
    WithdrawEnding,
)
from payflow.contracts.returns import Returns
from payflow.contracts.risk import AssessPayment, Risk
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.kernel.four_eyes import FourEyes
from payflow.platform.ids import UuidV7
from payflow.platform.rpc import in_process
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.audit import usecases as audit_usecases
from payflow.services.audit.api import AuditApi
from payflow.services.confirm.domain import ReturnDeadlines
from payflow.services.confirm.ports import ReturnPorts
from payflow.services.confirm.return_api import ReturnsApi
from payflow.services.gateway.app import GatewaySettings
from payflow.services.gateway.routes.openapi import openapi_document
from payflow.services.gateway.routes.services import Services
from payflow.services.kyc.api import KycApi
from payflow.services.notification.api import NotificationApi, WebhooksApi
from payflow.services.notification.channel_api import CallbacksApi, DevicesApi
from payflow.services.notification.channels.twilio_callbacks import TwilioCallbacks
from payflow.services.notification.domain.addresses import AddressPolicy
from payflow.services.ofac.api import OfacApi
from payflow.services.ofac.index import loaded_lists
from payflow.services.risk.api import RiskApi
from payflow.services.risk.rules import default_rules
from tests.builders import NOON, FixedClock, new_id
from tests.builders_notification import shipped_templates
from tests.fakes import FakeAccountStore
from tests.fakes_audit import FakeAuditStore, FakeHeads
from tests.fakes_confirm import FakeConfirmStore, FakeRisk
from tests.fakes_gateway import FakeConfirm, FakeSides, GatewayWorld, Reply, a_payment
from tests.fakes_kyc import FakeKycStore
from tests.fakes_notification import FakeChannel, FakeContacts, FakeDevices, FakeNotificationStore
from tests.fakes_ofac import FakeOfacStore
from tests.fakes_returns import FakeReturnStore
from tests.fakes_risk import FakeCustomers, FakeRiskStore, FakeSanctions
from tests.fakes_webhooks import FakeWebhookStore, NumberedSecrets
from tests.openapi_contract import OpenApiContract

LISTED_NAME = "Rafael Caro Quintero"


@cache
def _documented() -> OpenApiContract:
    return OpenApiContract(msgspec.json.decode(openapi_document()[0]))


class FakeOperatorsConfirm(FakeConfirm):
    """Payments in memory, also by payment id for operators; decisions of reviews move them."""

    def add(self, payment: PaymentView) -> PaymentView:
        """A payment that was received and has come to where it is."""
        self.payments[(payment.customer_id, payment.transaction_id)] = payment
        self.transitions[payment.payment_id] = [
            TransitionView(version=1, source=None, target=PaymentState.RECEIVED, at=NOON, reason=None),
            TransitionView(version=2, source=PaymentState.RECEIVED, target=payment.state, at=NOON, reason=None),
        ]
        return payment

    def _find(self, customer_id: str | None, transaction_id: str) -> PaymentView | PayflowError:
        if customer_id is not None:
            return super()._find(customer_id, transaction_id)
        by_id = {str(payment.payment_id): payment for payment in self.payments.values()}
        return by_id.get(transaction_id) or PaymentNotFound()

    async def list_payments(self, queries: list[ListPayments]) -> Answers[PaymentPage]:
        (query,) = queries
        found = sorted(self.payments.values(), key=lambda payment: payment.payment_id, reverse=True)
        found = [
            payment
            for payment in found
            if query.customer_id in (None, payment.customer_id)
            and query.state in (None, payment.state)
            and (query.cursor is None or payment.payment_id < query.cursor)
        ]
        page = found[: query.limit]
        return [PaymentPage(payments=page, next_cursor=page[-1].payment_id if len(found) > query.limit else None)]

    async def decide_review(self, commands: list[DecideReview]) -> Answers[PaymentView]:
        for command in commands:
            found = self._find(None, str(command.payment_id))
            if isinstance(found, PaymentView):
                self.move(found.transaction_id, PaymentState.COMPLETED if command.is_cleared else PaymentState.REJECTED)
        return [self._find(None, str(command.payment_id)) for command in commands]


class FakePartnerBank(FakeSides):
    """Instructions in memory; the other bank accepts whatever it is asked about.

    `first_word`: returns wait for a second person after it. `refusal` is answered whoever ends a return.
    """

    def __init__(self) -> None:
        super().__init__()
        self.instructions: list[InstructionView] = []
        self.ended: list[EndReturn] = []
        self.withdrawn: list[WithdrawEnding] = []
        self.first_word: EndReturn | None = None
        self.refusal: PayflowError | None = None

    def add(self, **changes: Any) -> InstructionView:
        """An instruction, outgoing and unknown unless said otherwise."""
        values: dict[str, Any] = {
            "payment_id": new_id(),
            "direction": "OUTGOING",
            "end_to_end_id": "E2E-1",
            "agent_bic": "NORDDEFFXXX",
            "amount_minor": 123_456,
            "currency": "EUR",
            "status": "UNKNOWN",
            "reason_code": None,
            "created_at": NOON,
            "updated_at": NOON,
        }
        self.instructions.append(InstructionView(**{**values, **changes}))
        return self.instructions[-1]

    async def enquire(self, queries: list[Enquire]) -> Answers[SubmissionStatus]:
        return [self._enquire(query.payment_id) for query in queries]

    def _enquire(self, payment_id: UUID) -> SubmissionStatus | InstructionNotFound:
        for place, known in enumerate(self.instructions):
            if known.payment_id == payment_id:
                self.instructions[place] = msgspec.structs.replace(known, status="ACCEPTED")
                return SubmissionStatus(
                    payment_id=payment_id, status=BankStatus.ACCEPTED, reason_code=None, answered_at=NOON
                )
        return InstructionNotFound()

    async def end_return(self, commands: list[EndReturn]) -> Answers[ReturnEnding]:
        self.ended.extend(commands)
        if self.refusal is not None:
            return [self.refusal for _ in commands]
        return [self._ending(command.payment_id, self.first_word) for command in commands]

    async def withdraw_ending(self, commands: list[WithdrawEnding]) -> Answers[ReturnEnding]:
        self.withdrawn.extend(commands)
        return [self._ending(command.payment_id, None) for command in commands]

    def _ending(self, payment_id: UUID, first_word: EndReturn | None) -> ReturnEnding | InstructionNotFound:
        known = self._enquire(payment_id)
        if isinstance(known, InstructionNotFound):
            return known
        waits = first_word is not None or payment_id in {one.payment_id for one in self.withdrawn}
        return ReturnEnding(
            payment_id=payment_id,
            status=BankStatus.UNKNOWN if waits else BankStatus.ACCEPTED,
            reason_code=None,
            answered_at=None if waits else NOON,
            reference=first_word.reference if first_word else None,
            requested_by=first_word.ended_by if first_word else None,
            expires_at=NOON if first_word else None,
        )

    async def list_instructions(self, queries: list[ListInstructions]) -> Answers[InstructionPage]:
        (query,) = queries
        found = [
            known
            for known in sorted(self.instructions, key=lambda known: known.payment_id, reverse=True)
            if query.direction in (None, known.direction)
            and query.status in (None, known.status)
            and (query.cursor is None or known.payment_id < query.cursor)
        ]
        page = found[: query.limit]
        return [
            InstructionPage(instructions=page, next_cursor=page[-1].payment_id if len(found) > query.limit else None)
        ]


class OperatorWorld(GatewayWorld):
    """A gateway whose neighbours are the real services, in memory."""

    def __init__(self, keys_dir: Path) -> None:
        super().__init__(keys_dir, confirm=FakeOperatorsConfirm())
        clock, ids = FixedClock(), UuidV7()
        self.payments: Any = self.confirm
        self.accounts = FakeAccountStore()
        self.kyc_records = FakeKycStore()
        self.audit_rows = FakeAuditStore()
        self.audit = AuditApi(store=self.audit_rows, heads=FakeHeads(), clock=clock)
        self.bank = FakePartnerBank()
        self.webhooks = FakeWebhookStore()
        self.messages, self.devices = FakeNotificationStore(), FakeDevices()
        self.twilio = TwilioCallbacks(
            public_url="https://pay.example.org", account_sid="AC1", auth_token="token", channel="sms"
        )
        self.ofac = OfacApi(
            store=FakeOfacStore(),
            payments=self.payments,
            lists=loaded_lists(),
            proof_key=b"k" * 32,
            clock=clock,
            ids=ids,
        )
        self.risk = RiskApi(
            store=FakeRiskStore(),
            sanctions=FakeSanctions(),
            customers=FakeCustomers(),
            rules=default_rules(),
            clock=clock,
        )
        banks = ConfiguredBanks(AgentDirectory(read_agents(DEMO_AGENTS)))
        account = AccountApi(store=self.accounts, banks=banks, clock=clock, ids=ids)
        # Returns look at payments as confirm has them.
        self.payment_store, self.return_store = FakeConfirmStore(), FakeReturnStore()
        implementations: dict[type[Any], object] = {
            Audit: self.audit,
            Bulk: self.bulk,
            Callbacks: CallbacksApi(readers={Vendor.TWILIO: self.twilio}, store=self.messages, clock=clock),
            Devices: DevicesApi(devices=self.devices, is_in_use=True, clock=clock),
            Kyc: KycApi(store=self.kyc_records, clock=clock, ids=ids),
            Notification: NotificationApi(
                store=self.messages,
                channels=[FakeChannel("sms"), FakeChannel("email")],
                demo=None,
                contacts=FakeContacts(),
                templates=shipped_templates(),
                clock=clock,
                ids=ids,
            ),
            Ofac: self.ofac,
            PartnerBank: self.bank,
            Returns: ReturnsApi(
                ports=ReturnPorts(
                    returns=self.return_store,
                    payments=self.payment_store,
                    account=in_process(Account, account, caller="confirm"),
                    risk=in_process(Risk, FakeRisk(), caller="confirm"),
                    clock=clock,
                    ids=ids,
                    deadlines=ReturnDeadlines(),
                    four_eyes=FourEyes.parse("1000"),
                )
            ),
            Risk: self.risk,
            Webhooks: WebhooksApi(
                store=self.webhooks,
                policy=AddressPolicy(is_production=True),
                secrets=NumberedSecrets(),
                clock=clock,
                ids=ids,
            ),
        }
        services = Services(
            confirm=in_process(Confirm, self.payments, caller="gateway"),
            account=in_process(
                Account,
                account,
                caller="gateway",
            ),
            gateway=self.api,
            gate=self.gate,
            others={
                contract: in_process(contract, made, caller="gateway") for contract, made in implementations.items()
            },
        )
        self.serve(services, GatewaySettings(token_keys_dir=str(keys_dir)))
        self._tokens: dict[Role, str] = {}

    async def as_role(self, role: Role, method: str, path: str, body: Any = None, **more: Any) -> Reply:
        """One request by a user of this role, who is made when first needed; a customer is cust_001. Raises
        AssertionError for an answer that the OpenAPI document does not allow."""
        if role not in self._tokens:
            await self.user(role.value, role=role)
            self._tokens[role] = (await self.sign_in(role.value))["access_token"]
        reply = await self.client.send(method, path, body=body, token=self._tokens[role], **more)
        _documented().check(method, path, status=reply.status, headers=reply.headers, body=reply.body)
        return reply

    def forget(self, role: Role) -> None:
        """Have a role's user sign in again at the next request."""
        self._tokens.pop(role, None)

    async def customer(self, customer_id: str = "cust_001", **changes: Any) -> None:
        """A customer's record."""
        reply = await self.as_role(
            Role.OPERATOR, "POST", "/customers", {"customer_id": customer_id, "name": "Ada Lovelace", **changes}
        )
        assert reply.status == 201, reply.body

    async def review(self) -> tuple[PaymentView, UUID]:
        """A payment under review with its case."""
        payment = self.payments.add(a_payment(state=PaymentState.UNDER_REVIEW))
        command = ScreenPayment(payment_id=payment.payment_id, customer_id="cust_001", names=[LISTED_NAME])
        (screened,) = await self.ofac.screen([command])
        assert not isinstance(screened, PayflowError)
        assert screened.review_id is not None
        return payment, screened.review_id

    async def assess(self, payment: PaymentView) -> None:
        """Have a payment's risk assessed."""
        command = AssessPayment(
            payment_id=payment.payment_id,
            customer_id=payment.customer_id,
            amount_minor=payment.amount_minor or 0,
            currency=payment.currency or "USD",
            debtor=payment.debtor_account,
            creditor=payment.creditor_account,
            party_names=["Ada Lovelace"],
        )
        (assessed,) = await self.risk.assess([command])
        assert not isinstance(assessed, PayflowError)

    async def record(self, events: list[Event]) -> None:
        """Have events written into the audit trail."""
        async with self.audit_rows.transaction() as chain:
            await audit_usecases.record_events(events=events, chain=chain, now=NOON)
