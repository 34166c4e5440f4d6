"""What the user asked for, checked before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from payflow.run.errors import StartError
from payflow_dev.bench.target import parse_url

CONNECTIONS_MAX: Final = 1000
SECONDS_MAX: Final = 1800.0
PAYMENTS_MAX: Final = 100_000_000
CONNECTIONS: Final[dict[str, str]] = {
    "steps": "1,16,64,256",
    "overload": "256",
    "memory": "64",
    "velocity": "64,64,64,64",
    # A round each.
    "stack": "256,256,256,256",
    # Files under way at once.
    "bulk": "1,2,4",
}
CUSTOMERS_MIN: Final = 2
CUSTOMERS_MAX: Final = 20_000
HISTORY_MAX: Final = 100_000_000


class AddressOnly(msgspec.Struct, frozen=True, kw_only=True):
    """Who pays whom where only an address is known and no records can be made."""

    username: str
    password: str
    from_account: str
    to_account: str


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A bench run. `data_dir` names a running instance, `url` an address; without both it starts one of its own.

    `memory_payments` and `velocity_payments` switch these modes on where they are not 0.
    """

    seconds: float = 10.0
    connections: tuple[int, ...] = (1, 16, 64, 256)
    history: tuple[int, ...] = ()
    customers: int = 200
    is_hot: bool = False
    is_bulk: bool = False
    is_overload: bool = False
    memory_payments: int = 0
    velocity_payments: int = 0
    is_stack: bool = False
    inter_bank_share: float = 0.0
    seed: int = 1
    loader: Literal["own", "wrk"] = "own"
    with_pgbench: bool = True
    keeps_instance: bool = False
    json_file: Path | None = None
    url: str | None = None
    data_dir: Path | None = None
    payer: AddressOnly | None = None

    @property
    def starts_own(self) -> bool:
        """Whether the bench starts and removes its own instance."""
        return self.url is None and self.data_dir is None

    @property
    def mode(self) -> str:
        """What is measured: steps, overload, memory, velocity or stack."""
        asked = {
            "overload": self.is_overload,
            "memory": bool(self.memory_payments),
            "velocity": bool(self.velocity_payments),
            "stack": self.is_stack,
        }
        return next((name for name, is_asked in asked.items() if is_asked), "steps")

    @property
    def compares(self) -> bool:
        """Whether pgbench runs between the steps; the further modes compare steps of their own."""
        return self.with_pgbench and not self.is_address_only and self.mode == "steps"

    @property
    def is_address_only(self) -> bool:
        """Whether nothing but the public address is known: no records, no pgbench, no look into the ledger."""
        return self.data_dir is None and self.url is not None


def parse_connections(text: str) -> tuple[int, ...]:
    """Read "1,16,64,256"; a number may be repeated for another round. Raises StartError."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise StartError(f"--connections {text} must be numbers with commas, such as 64,256.") from None
    if not all(1 <= count <= CONNECTIONS_MAX for count in found):
        raise StartError(f"--connections {text}: each must be between 1 and {CONNECTIONS_MAX}.")
    return found


def parse_history(text: str | None) -> tuple[int, ...]:
    """Read "1000000,10000000": the ledger's length in journal entries, growing. Raises StartError."""
    if text is None:
        return ()
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise StartError(f"--history {text} must be numbers with commas, such as 1000000,10000000.") from None
    if not all(1 <= entries <= HISTORY_MAX for entries in found) or list(found) != sorted(set(found)):
        raise StartError(f"--history {text}: each must be between 1 and {HISTORY_MAX:,}, and more than the one before.")
    return found


def default_connections(
    *, is_bulk: bool, is_overload: bool, memory: int | None, velocity: int | None, is_stack: bool = False
) -> str:
    """The steps of a mode where none are named."""
    asked = {
        "bulk": is_bulk,
        "overload": is_overload,
        "memory": bool(memory),
        "velocity": bool(velocity),
        "stack": is_stack,
    }
    return CONNECTIONS[next((mode for mode, is_asked in asked.items() if is_asked), "steps")]


def choose_loader(asked: str, *, wrk: str | None) -> Literal["own", "wrk"]:
    """What makes the load: as asked, where that is `auto` wrk when it is installed. `wrk` is where the program is.

    Raises StartError where wrk was asked for and is not there.
    """
    if asked == "own" or (asked == "auto" and wrk is None):
        return "own"
    if wrk is None:
        raise StartError("--loader wrk: wrk is not installed (Debian, Ubuntu: apt-get install wrk).")
    return "wrk"


def payer_from(
    *, username: str | None, password: str | None, from_account: str | None, to_account: str | None
) -> AddressOnly | None:
    """The payer where all four are given, None where none is. Raises StartError for a part of them."""
    given = (username, password, from_account, to_account)
    if username and password and from_account and to_account:
        return AddressOnly(username=username, password=password, from_account=from_account, to_account=to_account)
    if any(given):
        raise StartError("--username, --password, --from-account and --to-account belong together.")
    return None


def check(options: Options) -> None:
    """Raises StartError with one line on the first thing that cannot be."""
    if not 1 <= options.seconds <= SECONDS_MAX:
        raise StartError(f"--seconds must be between 1 and {SECONDS_MAX:.0f}.")
    if not 0 <= options.inter_bank_share <= 1:
        raise StartError("--inter-bank must be a share between 0 and 1.")
    if not CUSTOMERS_MIN <= options.customers <= CUSTOMERS_MAX:
        raise StartError(f"--customers must be between {CUSTOMERS_MIN} and {CUSTOMERS_MAX}.")
    _check_mode(options)
    if options.url is not None:
        parse_url(options.url)
    if options.is_address_only and options.payer is None:
        raise StartError(
            "--url alone also needs --username, --password, --from-account and --to-account; with the instance's "
            "--data-dir the bench makes its own customers and checks the ledger."
        )
    if options.is_address_only and (options.is_hot or options.inter_bank_share):
        raise StartError("--hot and --inter-bank need customers of the bench's own: give --data-dir as well.")
    if options.is_bulk and options.is_address_only:
        raise StartError("--bulk needs customers of the bench's own: give --data-dir as well.")
    if options.payer is not None and not options.is_address_only:
        raise StartError("--username and its companions are for --url alone; otherwise the bench makes its customers.")
    if options.history and options.is_address_only:
        raise StartError("--history writes into the instance's database: give --data-dir as well.")
    if options.keeps_instance and not options.starts_own:
        raise StartError("--keep is about the bench's own instance; one that runs already is never stopped.")


def _check_mode(options: Options) -> None:
    modes = [options.is_overload, bool(options.memory_payments), bool(options.velocity_payments), options.is_stack]
    if sum(modes) > 1:
        raise StartError("--overload, --memory, --velocity and --stack are runs of their own: one at a time.")
    if options.is_stack and not (options.starts_own and not options.keeps_instance):
        raise StartError("--stack starts four instances of its own: without --data-dir, --url and --keep.")
    for name, payments in (("--memory", options.memory_payments), ("--velocity", options.velocity_payments)):
        if not 0 <= payments <= PAYMENTS_MAX:
            raise StartError(f"{name} must be between 1 and {PAYMENTS_MAX:,} payments.")
    if options.mode == "steps":
        return
    if options.is_address_only:
        raise StartError(f"--{options.mode} looks into the instance: give its --data-dir as well.")
    if options.is_bulk:
        raise StartError("--bulk is a run of its own: without --overload, --memory, --velocity and --stack.")
    if options.mode == "overload" and options.loader != "own":
        raise StartError("--overload sends by the clock, which only the bench's own loader does: --loader own.")
    if options.mode == "memory" and len(options.connections) != 1:
        raise StartError("--memory drives one number of connections, such as --connections 64.")
    if options.history and options.mode != "steps":
        raise StartError("--history repeats the usual steps: without --overload, --memory, --velocity and --stack.")
    if options.mode == "velocity" and options.is_hot:
        raise StartError("--velocity chooses the payers itself: leave --hot away.")
