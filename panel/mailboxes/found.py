"""The addresses and logins that a searched text names, each by an index. Whoever asks takes the first few."""

from django.db.models import Q, QuerySet

from panel.database.indexed import Folded, begins, begins_folded, is_folded, within
from panel.mailboxes.models import Address, LoginEvent
from panel.rules.searched import Searched


def addresses(rows: QuerySet[Address], searched: Searched) -> QuerySet[Address] | None:
    """Those of `rows` that are this address or begin so, in that order; None: none can be.

    "ann" are all whose local part begins so, "ann@ac" the anns in the domains that begin so, "@acme.test"
    all in that domain.
    """
    if not searched.begins:
        return None
    if searched.local_part is None:
        return rows.filter(begins_folded("local_part", searched.begins)).order_by(Folded("local_part"))
    if not searched.at_domain:
        return rows.filter(is_folded("local_part", searched.local_part)).order_by("domain__name")
    there = rows.filter(begins("domain__name", searched.at_domain))
    if searched.local_part:
        there = there.filter(local_part=searched.local_part)
    return there.order_by("domain__name", "local_part")


def after(domain: str, local_part: str) -> Q:
    """What comes after an address in the order BY_ADDRESS; its first part is what an index answers."""
    same = Q(domain_name=domain, local_part__gt=local_part)
    return Q(domain_name__gte=domain) & (same | Q(domain_name__gt=domain))


def logins(rows: QuerySet[LoginEvent], searched: Searched) -> QuerySet[LoginEvent] | None:
    """Those from this network, or whose login name begins so; of one address the newest first."""
    if searched.network is not None:
        there = within("ip", searched.network)
        if there is None:
            return None
        return rows.filter(there).order_by(*(["-pk"] if searched.network.num_addresses == 1 else []))
    if not searched.begins:
        return None
    return rows.filter(begins_folded("login", searched.begins)).alias(folded=Folded("login")).order_by("folded", "-pk")
