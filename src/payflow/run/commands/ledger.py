"""`payflow ledger verify`: recompute the ledger from its postings."""

from __future__ import annotations

import asyncio

import typer

from payflow.run.instance import make_instance
from payflow.run.options import DataDir


def verify(data_dir: DataDir = None) -> None:
    """Recompute every balance, hold and entry from the postings, in one snapshot. Exit code 1 when a rule is broken."""
    from payflow.contracts.account import Account, LedgerVerified, VerifyLedger
    from payflow.kernel.errors import PayflowError
    from payflow.run.control import require_running
    from payflow.run.errors import StartError
    from payflow.run.local_rpc import local_services

    instance = require_running(make_instance(data_dir=data_dir)).instance

    async def ask() -> LedgerVerified | PayflowError:
        async with local_services(instance) as services:
            (answer,) = await services.client(Account).verify_ledger([VerifyLedger()])
            return answer

    found = asyncio.run(ask())
    if isinstance(found, PayflowError):
        raise StartError(f"The ledger could not be verified: {found.code} {found.detail}")
    print(
        f"{found.accounts} accounts, {found.entries} journal entries, {found.postings} postings, "
        f"{found.open_holds} open holds"
    )
    if found.broken:
        raise StartError("The ledger is broken:\n  " + "\n  ".join(found.broken))
    print("The ledger is whole: every entry balances, and every balance is the sum of its postings.")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    ledger = typer.Typer(no_args_is_help=True, help="The double-entry ledger.")

    @ledger.callback()
    def group() -> None:
        """The double-entry ledger."""

    ledger.command("verify")(verify)
    app.add_typer(ledger, name="ledger")
