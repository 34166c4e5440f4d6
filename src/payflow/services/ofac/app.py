"""Reads the ofac service's settings and wires it."""

from __future__ import annotations

import base64
import hmac
from typing import Annotated, Final

import msgspec

from payflow.contracts.confirm import Confirm
from payflow.contracts.ofac import Ofac
from payflow.platform.crypto import ColumnCipher
from payflow.platform.service import Runtime, Service, every
from payflow.platform.settings import CommonSettings, describe
from payflow.services.ofac.api import OfacApi
from payflow.services.ofac.index import loaded_lists
from payflow.services.ofac.store import PostgresStore

# Asked for while importing, so that the parent of all services builds the index once, before it forks.
LISTS: Final = loaded_lists()


class OfacSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the ofac service."""

    column_keys: Annotated[
        str, describe("keys of encrypted columns as JSON; best given as _FILE", check=ColumnCipher.from_json)
    ]
    review_delivery_check_s: Annotated[
        float, describe("pause between looks for review decisions that confirm has not taken yet")
    ] = 1.0


SETTINGS = OfacSettings


def proof_key_of(column_keys: str) -> bytes:
    """The key of the proofs of clear names, derived from the active column key: one secret fewer to keep.

    After a rotation names are proved anew; older proofs are found with the older key, which stays in the file.
    """
    document = msgspec.json.decode(column_keys)
    active = base64.b64decode(document["keys"][document["active"]])
    return hmac.digest(active, b"payflow ofac proof of clear names", "sha256")


async def build(runtime: Runtime) -> Service:
    """Wire the ofac service."""
    settings = runtime.settings(OfacSettings)
    cipher = runtime.cipher(settings.column_keys)
    database = await runtime.database()
    api = OfacApi(
        store=PostgresStore(database=database, cipher=cipher, outbox=runtime.outbox(database)),
        payments=runtime.client(Confirm),
        lists=LISTS,
        proof_key=proof_key_of(settings.column_keys),
        clock=runtime.clock,
        ids=runtime.ids,
    )
    return Service(
        implementations=[(Ofac, api)],
        checks=dict(runtime.checks_for(database=database)),
        required={"postgres"},
        background={
            "deliver_decisions": every(settings.review_delivery_check_s, api.deliver_due),
            "measure_open_reviews": every(5, api.measure_open_reviews),
        },
    )
