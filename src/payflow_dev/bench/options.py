"""What the user asked for, checked before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from payflow.run.errors import StartError
from payflow_dev.bench.target import parse_url

CONNECTIONS_MAX: Final = 1000
SECONDS_MAX: Final = 1800.0
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
    """A bench run. `data_dir` names a running instance, `url` an address; without both it starts one of its own."""

    seconds: float = 10.0
    connections: tuple[int, ...] = (1, 16, 64, 256)
    history: tuple[int, ...] = ()
    customers: int = 200
    is_hot: bool = False
    is_bulk: bool = False
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
    def is_address_only(self) -> bool:
        """Whether nothing but the public address is known: no records, no pgbench, no look into the ledger."""
        return self.data_dir is None and self.url is not None


CONNECTIONS: Final = "1,16,64,256"
# In bulk mode: files under way at once.
FILES: Final = "1,2,4"


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
