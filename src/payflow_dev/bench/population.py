"""Who pays whom: customers with accounts, and a stream of payments between them, the same for the same seed."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

CURRENCY: Final = "USD"
ACCOUNTS_PER_CUSTOMER: Final = 2
# Nobody runs dry, also where one account pays everything: 10,000,000,000.00.
OPENING_BALANCE_MINOR: Final = 10**12

# Amounts of 6,471 permanent orders of a Czech bank (PKDD'99 Discovery Challenge, Berka and Sochorova): log-normal with
# these parameters. The upper bound stays below 5,000.00, from where on risk adds points and asks for a password.
_AMOUNT_MU: Final = 5.28
_AMOUNT_SIGMA: Final = 1.30
AMOUNT_MAX_MINOR: Final = 490_000
# Counterparties per account in AMLSim's degree files (IBM): scale-free, the complementary distribution falls with slope
# -2, so the account of rank r gets a share proportional to r ** (-1/2).
_CREDITOR_RANK_EXPONENT: Final = -0.5
# Payable accounts at the simulated other banks.
INTER_BANK_CREDITORS: Final = ("DE08990100100000001001",)
# Another bank's account has no owner that we know: such a payment names its creditor.
INTER_BANK_CREDITOR_NAME: Final = "Erika Musterfrau"

# Payments in a file of the bulk mode; the stream has a whole number of files.
FILE_PAYMENTS: Final = 2_000

# Made-up names: a real one is sometimes near a name on the sanctions lists, and such a payment waits for an officer.
_GIVEN_NAMES: Final = (
    "Alvenka", "Brisolde", "Cordwin", "Delphara", "Eskanor", "Fennimor", "Gwendira", "Hollisbert", "Ilvermund",
    "Jorquella", "Kestravel", "Lindorfa", "Mirabrook", "Nellswick", "Orwinda", "Pellgrath", "Quillhart", "Rosvelda",
    "Sundrimar", "Thornabel",
)  # fmt: skip
_SURNAMES: Final = (
    "Ashgrovely", "Birkmantel", "Crossfennel", "Dunmarrow", "Eldenvoort", "Farrowmere", "Glimmerstedt", "Hawksbridle",
    "Inglethwaite", "Juniperholt", "Kettlewhisk", "Larkspurton", "Mossbrindle", "Nettlefordham", "Oakenshyre",
    "Pumphreylake", "Quenbyworth", "Rumblethorpe", "Saffronwald", "Tumblebrook",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer with a login and accounts, all in one currency and with the same opening balance."""

    customer_id: str
    username: str
    name: str
    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment of the stream. `customer` is the payer's place in the list of customers."""

    customer: int
    debtor: str
    creditor: str
    amount_minor: int


def possible_names() -> list[str]:
    """Every name that a customer can get."""
    return [f"{given} {surname}" for surname in _SURNAMES for given in _GIVEN_NAMES]


def make_customers(*, count: int, run_id: str, seed: int) -> list[Customer]:
    """Customers whose ids carry `run_id`, so that several runs fit into one instance."""
    names = possible_names()
    random.Random(seed).shuffle(names)
    return [
        Customer(
            customer_id=f"bench_{run_id}_{number:05d}",
            username=f"bench-{run_id}-{number:05d}",
            name=names[number % len(names)],
            accounts=tuple(f"B{run_id}{number:05d}{letter}" for letter in "ABCDEFGH"[:ACCOUNTS_PER_CUSTOMER]),
        )
        for number in range(count)
    ]


def make_payments(
    *,
    customers: list[Customer],
    count: int,
    seed: int,
    is_hot: bool,
    inter_bank_share: float,
    in_a_row: int = 1,
    payers: Sequence[int] = (),
) -> list[Payment]:
    """A stream of payments: payers drawn evenly (`is_hot`: always the first account), creditors by a heavy tail.

    `in_a_row`: so many payments are one payer's before another one is drawn: a file of theirs.
    `payers` are the places of the customers who pay, everybody where it is empty. No customer pays themselves.
    `inter_bank_share` (0 to 1) of the payments leave for accounts at other banks.
    """
    source = random.Random(seed)
    owner_of = {account: number for number, customer in enumerate(customers) for account in customer.accounts}
    ranked = sorted(owner_of)
    source.shuffle(ranked)
    shares = list(accumulate((rank + 1) ** _CREDITOR_RANK_EXPONENT for rank in range(len(ranked))))

    def creditor_for(payer: int) -> str:
        if source.random() < inter_bank_share:
            return source.choice(INTER_BANK_CREDITORS)
        while True:
            account = ranked[bisect(shares, source.random() * shares[-1])]
            if owner_of[account] != payer:
                return account

    payments = []
    payer, drawn = 0, payers or range(len(customers))
    for number in range(count):
        if not is_hot and number % in_a_row == 0:
            payer = source.choice(drawn)
        accounts = customers[payer].accounts
        debtor = accounts[0] if is_hot else source.choice(accounts)
        payments.append(Payment(payer, debtor, creditor_for(payer), random_amount_minor(source)))
    return payments


def random_amount_minor(source: random.Random) -> int:
    """An amount in minor units, at least 1, at most AMOUNT_MAX_MINOR."""
    cents = round(source.lognormvariate(_AMOUNT_MU, _AMOUNT_SIGMA) * 100)
    return min(max(cents, 1), AMOUNT_MAX_MINOR)


def in_whole_files(stream: Sequence[Payment], *, first: int) -> Sequence[Payment]:
    """The same stream, moved on so that a file of one payer begins at number `first`, whatever was sent before."""
    behind = first % FILE_PAYMENTS
    return [*stream[-behind:], *stream[:-behind]] if behind else stream
