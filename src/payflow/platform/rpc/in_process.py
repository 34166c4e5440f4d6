"""A contract bound to an implementation in the same process, for tests: encoded and decoded as on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from payflow.kernel.errors import PayflowError
from payflow.platform.context import current_deadline
from payflow.platform.rpc.client import NotInContract, client_for
from payflow.platform.rpc.server import Route
from payflow.platform.rpc.wire import Codec, WireError

C = TypeVar("C")


def in_process(contract: type[C], implementation: object, *, caller: str, queue_max: int = 10_000) -> C:
    """A client of `implementation` that behaves as the HTTP client does, coalescing and caller check included.

    An implementation may have a part of the contract only: whoever asks for the rest is told so by a TypeError.
    """

    def send_of(codec: Codec) -> Callable[[list[Any], float], Any]:
        async def has_it_not(items: list[Any]) -> list[Any]:
            raise TypeError(f"{type(implementation).__name__} has no {codec.spec.name}")

        route = Route(codec.spec, getattr(implementation, codec.spec.name, has_it_not))

        async def send(items: list[Any], deadline: float) -> list[Any]:
            if caller not in codec.spec.options.callers:
                raise NotInContract(f"{caller} may not call {codec.spec.service}.{codec.spec.name}.")
            try:
                received = codec.decode_items(codec.encode_items(items))
            except WireError as error:
                raise NotInContract(str(error)) from error
            current_deadline.set(deadline)
            answers: list[Any | PayflowError] = await route.call(received)
            return codec.decode_answers(codec.encode_answers(answers), len(items))

        return send

    return client_for(contract, send_of=send_of, queue_max=queue_max)
