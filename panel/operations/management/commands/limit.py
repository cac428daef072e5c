"""Sending limits on the command line."""

from django.db import transaction
from django.db.models import QuerySet

from panel.domains.models import Domain
from panel.mailboxes.models import Mailbox
from panel.mailboxes.services import find_mailbox
from panel.operations.management import base
from panel.sending.models import SendingLimit, Window
from panel.sending.services import INHERIT, Inherit, LimitSubject, inherit_limit, read_limit, set_limit
from panel.tenants.changes import AlreadySo, ServiceError
from panel.tenants.models import Tenant


class Command(base.Command):
    help = (
        "Sending limits: recipients that a mailbox, a domain or a tenant may reach in a sliding hour or day. "
        'What has no limit of its own inherits the plan\'s; "unlimited" lifts it.'
    )
    examples = """
        limit set ann@acme.example hour=100 day=500
        limit set tenant:Acme day=unlimited
        limit set domain:acme.example hour=inherit
        limit show ann@acme.example
    """

    def add_acts(self, acts: base.Acts) -> None:
        subject_help = "a mailbox's address, tenant:NAME or domain:NAME"
        change = acts.add(
            "set", self.set, help="Set the limits of one window or both.",
            examples="limit set ann@acme.example hour=100 day=500\n limit set tenant:Acme hour=inherit",
        )
        change.add_argument("subject", metavar="SUBJECT", help=subject_help)
        change.add_argument(
            "limits", metavar="WINDOW=LIMIT", nargs="+", help="hour= or day= a number, unlimited or inherit"
        )
        show = acts.add(
            "show", self.show, help="Show the limits of a mailbox, a domain or a tenant.",
            examples="limit show ann@acme.example\n limit show tenant:Acme",
        )
        show.add_argument("subject", metavar="SUBJECT", help=subject_help)
        listing = acts.add_list(
            self.list, help="Show what has limits of its own.", examples="limit list --tenant Acme --json"
        )
        listing.add_argument("--tenant", metavar="TENANT", help="only this tenant's")

    def set(self, *, subject: str, limits: list[str]) -> None:
        found = _find(subject)
        read = [_read(text) for text in limits]
        wanted = dict(read)
        if len(wanted) < len(read):
            raise ServiceError("A window stands there twice: write each once.")
        own = dict(_own(found).values_list("window", "recipients"))
        if all(own.get(window, INHERIT) == limit for window, limit in wanted.items()):
            raise AlreadySo(f"Nothing to change: {found} has these limits already.")
        with transaction.atomic():
            for window, limit in wanted.items():
                if not isinstance(limit, Inherit):
                    set_limit(found, window=window, recipients=limit, actor=None)
                elif _own(found).filter(window=window).exists():
                    inherit_limit(found, window=window, actor=None)
        self._show(found)

    def show(self, *, subject: str) -> None:
        self._show(_find(subject))

    def list(self, *, tenant: str | None) -> None:
        limits = SendingLimit.objects.select_related(
            "tenant", "domain", "mailbox__address__domain", "credential__mailbox__address__domain"
        ).order_by("owner__name", "pk")
        if tenant is not None:
            limits = limits.filter(owner=base.find_tenant(tenant))
        self.table(
            ("SUBJECT", "WINDOW", "RECIPIENTS", "FROM"),
            [
                (_written(one), one.get_window_display(), "unlimited" if one.recipients is None else one.recipients,
                 "its own")
                for one in limits
            ],
            empty="Nothing has a limit of its own: the plans' hold.",
        )

    def _show(self, subject: LimitSubject) -> None:
        own = dict(_own(subject).values_list("window", "recipients"))
        rows = []
        for window, words in Window.choices:
            if window in own:
                number, source = own[window], "its own"
            else:
                number, source = _from_plan(subject, window)
            rows.append((str(subject), words, "unlimited" if number is None else number, source))
        self.table(("SUBJECT", "WINDOW", "RECIPIENTS", "FROM"), rows, empty="")


def _written(limit: SendingLimit) -> str:
    """The subject as `limit set` takes it."""
    if limit.mailbox:
        return str(limit.mailbox)
    if limit.credential:
        return f"{limit.credential} of {limit.credential.mailbox}"
    return f"tenant:{limit.tenant}" if limit.tenant else f"domain:{limit.domain}"


def _find(text: str) -> LimitSubject:
    kind, colon, name = text.partition(":")
    if colon and kind == "tenant":
        return base.find_tenant(name)
    if colon and kind == "domain":
        return base.find_domain(name)
    if "@" not in text:
        raise base.Usage(f"{text[:100]!r} is not understood: write a mailbox's address, tenant:NAME or domain:NAME.")
    return find_mailbox(text)


def _read(text: str) -> tuple[str, int | Inherit | None]:
    window, equals, limit = text.partition("=")
    if not equals or window not in Window.values:
        raise base.Usage(f"{text!r} is not understood: write hour=100, day=unlimited or day={INHERIT.value}.")
    return window, read_limit(limit)


def _own(subject: LimitSubject) -> QuerySet[SendingLimit]:
    return SendingLimit.objects.filter(**{type(subject).__name__.lower(): subject})


def _from_plan(subject: LimitSubject, window: str) -> tuple[int | None, str]:
    """What holds when the subject has no limit of its own."""
    match subject:
        case Tenant():
            return getattr(subject.plan, f"tenant_{window}"), f"the plan {subject.plan}"
        case Mailbox():
            plan = subject.address.tenant.plan
            return getattr(plan, f"mailbox_{window}"), f"the plan {plan}"
        case Domain():
            return None, "nothing: only its mailboxes and its tenant are limited"
    return None, "its mailbox"
