"""`payflow otp`: the newest one-time password of a demo payment."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from payflow.run.instance import Instance
from payflow.run.options import DataDir


def otp(
    transaction_id: Annotated[str, typer.Argument(help="The payment's transaction_id.")],
    customer: Annotated[str | None, typer.Option("--customer", help="The customer's id, where it matters.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Print the code that the demo channel got for a payment. There is no demo channel in production."""
    from payflow.run.local_rpc import reachable_instance

    instance = reachable_instance(data_dir)
    print(asyncio.run(newest_code(instance=instance, transaction_id=transaction_id, customer=customer)))


async def newest_code(*, instance: Instance, transaction_id: str, customer: str | None = None) -> str:
    """The newest code that the demo channel got for a payment. Raises StartError where there is none."""
    from payflow.contracts.notification import FindDemoCode, Notification
    from payflow.kernel.errors import PayflowError
    from payflow.run.errors import StartError
    from payflow.run.local_rpc import local_services

    async with local_services(instance) as services:
        query = FindDemoCode(transaction_id=transaction_id, customer_id=customer)
        (answer,) = await services.client(Notification).find_demo_codes([query])
    if isinstance(answer, PayflowError):
        hints = {
            "MESSAGE_NOT_FOUND": f"No code was sent for {transaction_id}: was the answer OTP_REQUIRED?",
            "NO_DEMO_CHANNEL": "The demo channel is off (it always is in production).",
        }
        raise StartError(hints.get(answer.code, f"{answer.code}: {answer.detail}"))
    return answer.code


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(otp)
