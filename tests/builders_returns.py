"""Returns as tests ask for them, decide about them and look at them."""

from __future__ import annotations

from uuid import UUID

from payflow.contracts.confirm import (
    GetPayment,
    PaymentView,
)
from payflow.contracts.returns import (
    DecideReturn,
    GetReturn,
    RequestReturn,
    ReturnReason,
    ReturnView,
)
from payflow.kernel.errors import PayflowError
from tests.builders import new_id
from tests.builders_confirm import World
from tests.builders_confirm import world as world


async def paid(world: World, amount: str = "900.00") -> PaymentView:
    view = await world.pay(world.request(amount))
    assert isinstance(view, PaymentView), view
    assert view.state == "COMPLETED"
    return view


def asked(payment: PaymentView | UUID, amount: str | None = None, **more: object) -> RequestReturn:
    payment_id = payment if isinstance(payment, UUID) else payment.payment_id
    values = {
        "payment_id": payment_id,
        "idempotency_key": new_id().hex,
        "reason_code": ReturnReason.DUPLICATION,
        "requested_by": "olga",
        "amount": amount,
        **more,
    }
    values.setdefault("fingerprint", repr((payment_id, amount)).encode())
    return RequestReturn(**values)


async def request(world: World, command: RequestReturn) -> ReturnView | PayflowError:
    (answer,) = await world.returns.request_return([command])
    return answer


async def requested(world: World, payment: PaymentView, amount: str | None = None, **more: object) -> ReturnView:
    answer = await request(world, asked(payment, amount, **more))
    assert isinstance(answer, ReturnView), answer
    return answer


async def decide(
    world: World, view: ReturnView, *, by: str = "omar", is_approved: bool = True, customer: str | None = None
) -> ReturnView | PayflowError:
    command = DecideReturn(
        return_id=view.return_id, is_approved=is_approved, decided_by=by, officer_customer_id=customer
    )
    (answer,) = await world.returns.decide_return([command])
    return answer


async def now(world: World, view: ReturnView) -> ReturnView:
    (found,) = await world.returns.get_returns([GetReturn(return_id=view.return_id)])
    assert isinstance(found, ReturnView), found
    return found


async def returned_of(world: World, payment: PaymentView) -> int:
    (found,) = await world.gateway.get([GetPayment(transaction_id=str(payment.payment_id), customer_id=None)])
    assert isinstance(found, PaymentView), found
    return found.returned_minor
