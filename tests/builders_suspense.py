"""Money that waits in suspense, and what goes on with it by itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from payflow.contracts.ofac import ReviewState
from payflow.services.partner_bank.domain import (
    IncomingTransfer,
    Instruction,
    Return,
    Verdict,
    incoming_payment_id,
    return_id_of,
)
from tests.builders_partner_bank import NORDBANK, World, an_incoming


async def held(world: World, number: str, *, amount: str = "25.00") -> IncomingTransfer:
    """A payment that was taken and waits in suspense."""
    world.ofac.listed = {"Listed Person"}
    transfer = an_incoming(number, amount=amount, debtor_name="Listed Person")
    assert await world.receive(transfer) == [Verdict("ACWP")]
    return transfer


def decide(world: World, transfer: IncomingTransfer, state: ReviewState) -> None:
    world.ofac.decided[incoming_payment_id(agent_bic=NORDBANK, end_to_end_id=transfer.end_to_end_id)] = state


async def look_after(world: World) -> None:
    world.clock.move(timedelta(minutes=1))
    await world.inbound.look_after_suspense()


async def instruction_of(world: World, transfer: IncomingTransfer) -> Instruction:
    payment_id = incoming_payment_id(agent_bic=NORDBANK, end_to_end_id=transfer.end_to_end_id)
    return (await world.store.find([payment_id]))[payment_id]


async def asked(world: World, transfer: IncomingTransfer) -> list[Verdict]:
    return await world.inbound.answer_enquiry([transfer.end_to_end_id], agent_bic=NORDBANK)


async def rounds(world: World) -> None:
    """Everything that goes on by itself, a few times over."""
    for _ in range(4):
        await look_after(world)
        await world.api.offer_returns()
        await world.api.book_returns()


async def return_made(world: World, transfer: IncomingTransfer, number: int = 1) -> Return:
    return_id = return_id_of((await instruction_of(world, transfer)).payment_id, number)
    return (await world.store.find_returns([return_id]))[return_id]


async def frozen_before_crediting(world: World, transfer: IncomingTransfer) -> tuple[asyncio.Task[None], asyncio.Event]:
    """A process that was stopped when it had decided to credit a cleared payment, and what lets it go on."""
    gate = asyncio.Event()
    decide(world, transfer, ReviewState.CLEARED)
    world.ledger.called.clear()
    world.ledger.gates = [gate]
    world.clock.move(timedelta(minutes=1))
    frozen = asyncio.create_task(world.inbound.look_after_suspense())
    await world.ledger.called.wait()
    return frozen, gate
