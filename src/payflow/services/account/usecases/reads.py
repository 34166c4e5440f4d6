"""Questions about accounts, customers and statement lines; nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from payflow.contracts.account import (
    AccountList,
    AccountNotFound,
    AccountNotYours,
    AccountView,
    CreditorUnreachable,
    CustomerNotFound,
    CustomerView,
    EntryPage,
    ExternalParty,
    GetAccount,
    InstantNotPassed,
    ListAccounts,
    ListEntries,
    PartiesResolved,
    ResolveParties,
    SameAccount,
)
from payflow.contracts.operation import Answers
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.services.account.ports import BankDirectory, Store

# The least time between two instants that PostgreSQL tells apart.
_ATOM: Final = timedelta(microseconds=1)
_BUSY: Final = "The account is being booked on at this moment; ask again."


async def resolve_parties(
    *, queries: Sequence[ResolveParties], store: Store, banks: BankDirectory
) -> Answers[PartiesResolved]:
    """Who stands on both sides of each payment, and whether the money stays with us.

    Items may be AccountNotYours (also where there is no such debtor account, so that nobody can probe for accounts),
    SameAccount, CreditorUnreachable.
    """
    numbers = {number for query in queries for number in (query.debtor_account, query.creditor_account)}
    known = await store.parties(sorted(numbers))

    def resolve(query: ResolveParties) -> PartiesResolved | PayflowError:
        debtor = known.get(query.debtor_account)
        if debtor is None or debtor.customer_id != query.customer_id:
            return AccountNotYours()
        if query.debtor_account == query.creditor_account:
            return SameAccount()
        creditor = known.get(query.creditor_account) if query.creditor_agent is None else None
        if creditor is not None:
            return PartiesResolved(debtor=debtor, creditor=creditor)
        agent_bic = banks.agent_of(account=query.creditor_account, agent_bic=query.creditor_agent)
        if isinstance(agent_bic, CreditorUnreachable):
            return agent_bic
        country = banks.country_of(query.creditor_account)
        external = ExternalParty(number=query.creditor_account, agent_bic=agent_bic, country=country)
        return PartiesResolved(debtor=debtor, external=external)

    return [resolve(query) for query in queries]


async def get_customers(*, customer_ids: Sequence[str], store: Store) -> Answers[CustomerView]:
    """Customers by id. Items may be CustomerNotFound."""
    known = await store.customers(sorted(set(customer_ids)))
    return [known.get(customer_id) or CustomerNotFound() for customer_id in customer_ids]


async def get_accounts(*, queries: Sequence[GetAccount], store: Store, now: datetime) -> Answers[AccountView]:
    """Accounts by number, as they are or with their balances as of an instant.

    Items may be AccountNotFound, also where the account is another customer's, InstantNotPassed, and Unavailable where
    the account is being booked on for so long that nobody can tell.
    """
    known = await store.accounts(sorted({query.number for query in queries}))
    visible = [query for query in queries if _is_visible(known.get(query.number), query.customer_id)]
    wanted = sorted({(query.number, query.at) for query in visible if query.at is not None and query.at <= now})
    # In their order, so that of several instants of an account the latest one stays.
    closed = await store.close_instants(dict(wanted)) if wanted else set()
    known_at = await store.accounts_at(wanted) if wanted else {}

    def pick(query: GetAccount) -> AccountView | PayflowError:
        if query.at is not None and query.at > now:
            return InstantNotPassed()
        if not _is_visible(known.get(query.number), query.customer_id):
            return AccountNotFound()
        if query.at is None:
            return known[query.number]
        return known_at[query.number, query.at] if query.number in closed else Unavailable(_BUSY)

    return [pick(query) for query in queries]


def _is_visible(account: AccountView | None, customer_id: str | None) -> bool:
    return account is not None and customer_id in (None, account.customer_id)


async def list_accounts(*, queries: Sequence[ListAccounts], store: Store) -> Answers[AccountList]:
    """Each customer's accounts, ordered by number; an empty list for a customer without any."""
    known = await store.accounts_of(sorted({query.customer_id for query in queries}))
    return [AccountList(accounts=known.get(query.customer_id, [])) for query in queries]


async def list_entries(*, queries: Sequence[ListEntries], store: Store, now: datetime) -> Answers[EntryPage]:
    """Statement lines, a page for each query.

    Items may be AccountNotFound, and Unavailable where the account is being booked on for so long that nobody can tell,
    or where a replica has not come so far: the primary is to be asked.
    """
    owners = [GetAccount(number=query.number, customer_id=query.customer_id) for query in queries]
    accounts = await get_accounts(queries=owners, store=store, now=now)
    pages: Answers[EntryPage] = []
    for query, account in zip(queries, accounts, strict=True):
        if isinstance(account, PayflowError):
            pages.append(account)
            continue
        is_closed = await _close_before(query.booked_until, account, store, now)
        pages.append(await store.entries(query) if is_closed else Unavailable(_BUSY))
    return pages


async def _close_before(end: datetime | None, account: AccountView, store: Store, now: datetime) -> bool:
    """Have a statement up to here, which it does not include, be the same for ever; False where that is not so.

    One that goes on is never the same, and before the account was opened there is nothing.
    """
    if end is None or not account.opened_at < end <= now:
        return True
    return bool(await store.close_instants({account.number: end - _ATOM}))
