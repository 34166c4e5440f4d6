"""What `make spec` proves, and the mistakes that it must find."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from payflow_dev.spec.tlc import SPEC, Result, check

# Configurations in spec/, each with its scope in its first line.
PROOFS: Final = (
    "payment",
    "payment_gates",
    "on_us",
    "inter_bank",
    "three_runs",
    "ends_one",
    "ends_later",
    "ends_two",
    "ends_on_us",
    "ends_inter_bank",
)

# What continuous integration has the time for.
QUICK: Final = ("on_us", "inter_bank", "ends_one", "ends_later")


@dataclass(frozen=True, slots=True)
class Planted:
    """A mistake, and the configuration that must find it."""

    flaw: str
    config: str
    mistake: str


PLANTED: Final = (
    Planted("account_ignores_tokens", "inter_bank", "account obeys a process that was overtaken"),
    Planted("confirm_ignores_tokens", "on_us", "a process that was overtaken still stores its steps"),
    Planted("takeover_keeps_token", "on_us", "a take-over does not raise the fencing token"),
    Planted("key_after_effect", "on_us", "money moves before the ledger has stored that it did"),
    Planted("release_on_timeout", "inter_bank", "the other bank's silence is taken for a no"),
    Planted("release_leaves_no_refusal", "on_us", "a late command still moves money after the release"),
    Planted("answer_before_write", "on_us", "the customer is answered before the end is stored"),
    Planted("submit_before_intent", "inter_bank", "the payment goes out before SUBMITTED is stored"),
    Planted("resend_under_new_id", "inter_bank", "a repeat to the other bank has a new id"),
    Planted("hold_repeat_keeps_token", "inter_bank", "a hold that is asked for again keeps the old token"),
    Planted("overtaken_still_submits", "inter_bank", "a process that was overtaken still sends the payment out"),
    Planted("transfer_leaves_hold", "on_us", "a transfer that knows of no hold leaves the payment's hold open"),
    Planted("booked_while_scheduled", "on_us", "what another clock has made cannot be completed before its day"),
    Planted("withdraw_what_was_sent", "on_us", "'nothing happened' is told although a command is on its way"),
    Planted("submitted_hold_expires", "inter_bank", "the hold of a submitted payment can expire"),
    Planted("approval_not_stored", "on_us", "an approval is acted on before it is stored"),
    Planted("ended_is_tried_again", "ends_one", "'this payment was ended' is tried again for ever"),
)


def config_of(name: str) -> str:
    """The text of a configuration in spec/."""
    return (SPEC / f"{name}.cfg").read_text()


def scope_of(name: str) -> str:
    """What a configuration covers: its first line."""
    return config_of(name).partition("\n")[0].removeprefix("\\*").strip()


def prove(name: str, *, workers: int) -> Result:
    """Check one configuration of the model exhaustively. Raises ToolMissing, CheckFailed."""
    return check(module=SPEC / "payment.tla", config=config_of(name), workers=workers)


def find(planted: Planted, *, workers: int) -> Result:
    """Check the model with a mistake in it: it should be refuted. Raises ToolMissing, CheckFailed."""
    return check(
        module=SPEC / "payment.tla", config=with_flaw(config_of(planted.config), planted.flaw), workers=workers
    )


def with_flaw(config: str, flaw: str) -> str:
    """A configuration with a mistake switched on. It may use up the tokens; it is not judged by that."""
    switched, count = re.subn(r'Flaw = "none"', f'Flaw = "{flaw}"', config)
    if count != 1:
        raise ValueError('the configuration does not say Flaw = "none" exactly once')
    return switched.replace("INVARIANT TokensSuffice\n", "")


def transition_table() -> set[tuple[str, str]]:
    """The model's transition table, read out of payment.tla between its two marks."""
    text = (SPEC / "payment.tla").read_text()
    table = text.partition("\\* table begins")[2].partition("\\* table ends")[0]
    return set(re.findall(r'<<"(\w+)", "(\w+)">>', table))
