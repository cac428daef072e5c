"""Who pays for what is sent, and how much each may send: rows of SendingLimit and the plans' numbers."""

from collections.abc import Iterable, Mapping, Sequence

from panel.domains.models import Domain
from panel.mailboxes import models as mailboxes
from panel.rules.addresses import Address
from panel.rules.limits import Kind, Subject, Window, effective
from panel.sending.models import SendingLimit
from panel.tenants.models import Tenant


def login_limits(credential: mailboxes.Credential) -> tuple[Subject, ...]:
    """Credential and domain if limited; mailbox and tenant always, so that their usage is counted."""
    box = credential.mailbox
    row = box.address
    own = _own_limits(
        {
            Kind.CREDENTIAL: [credential.pk],
            Kind.MAILBOX: [box.pk],
            Kind.DOMAIN: [row.domain_id],
            Kind.TENANT: [row.tenant_id],
        }
    )
    of_credential = effective(own.get((Kind.CREDENTIAL, credential.pk), {}), {})
    subjects = [
        Subject(Kind.CREDENTIAL, credential.pk, str(credential), of_credential, row.tenant_id)
        if of_credential
        else None,
        _mailbox_subject(row, own.get((Kind.MAILBOX, box.pk), {})),
        _domain_subject(row.domain, own.get((Kind.DOMAIN, row.domain_id), {})),
        _tenant_subject(row.tenant, own.get((Kind.TENANT, row.tenant_id), {})),
    ]
    return tuple(subject for subject in subjects if subject)


def who_pays(paying: Sequence[mailboxes.Address]) -> dict[int, tuple[Subject, ...]]:
    """Who pays for what leaves the house behind each address: its tenant, and its domain if that has a limit."""
    if not paying:
        return {}
    limits = _own_limits(
        {
            Kind.TENANT: {pays.tenant_id for pays in paying},
            Kind.DOMAIN: {pays.domain_id for pays in paying},
        }
    )
    found: dict[int, tuple[Subject, ...]] = {}
    for pays in paying:
        of_domain = _domain_subject(pays.domain, limits.get((Kind.DOMAIN, pays.domain_id), {}))
        of_tenant = _tenant_subject(pays.tenant, limits.get((Kind.TENANT, pays.tenant_id), {}))
        found[pays.pk] = (of_domain, of_tenant) if of_domain else (of_tenant,)
    return found


def answer_limits(answering: Sequence[mailboxes.Address]) -> dict[int, tuple[Subject, ...]]:
    """Who pays for what these mailboxes answer, by the mailbox's id: as if its owner sent it."""
    if not answering:
        return {}
    own = _own_limits({
        Kind.MAILBOX: {row.mailbox.pk for row in answering},
        Kind.DOMAIN: {row.domain_id for row in answering},
        Kind.TENANT: {row.tenant_id for row in answering},
    })
    return {
        row.mailbox.pk: tuple(subject for subject in (
            _mailbox_subject(row, own.get((Kind.MAILBOX, row.mailbox.pk), {})),
            _domain_subject(row.domain, own.get((Kind.DOMAIN, row.domain_id), {})),
            _tenant_subject(row.tenant, own.get((Kind.TENANT, row.tenant_id), {})),
        ) if subject)
        for row in answering
    }


def _own_limits(subjects: Mapping[Kind, Iterable[int]]) -> dict[tuple[Kind, int], dict[Window, int | None]]:
    """The SendingLimit rows of the subjects, as `effective` reads them."""
    fields = {
        Kind.CREDENTIAL: "credential_id",
        Kind.MAILBOX: "mailbox_id",
        Kind.DOMAIN: "domain_id",
        Kind.TENANT: "tenant_id",
    }
    found: dict[tuple[Kind, int], dict[Window, int | None]] = {}
    query = SendingLimit.objects.none()
    for kind, ids in subjects.items():
        query = query | SendingLimit.objects.filter(**{f"{fields[kind]}__in": list(ids)})
    for row in query.order_by():
        for kind, field in fields.items():
            subject = getattr(row, field)
            if subject is not None:
                found.setdefault((kind, subject), {})[Window(row.window)] = row.recipients
    return found


def _tenant_subject(tenant: Tenant, own: Mapping[Window, int | None]) -> Subject:
    plan = {Window.HOUR: tenant.plan.tenant_hour, Window.DAY: tenant.plan.tenant_day}
    return Subject(Kind.TENANT, tenant.pk, tenant.name, effective(own, plan), tenant.pk)


def _mailbox_subject(row: mailboxes.Address, own: Mapping[Window, int | None]) -> Subject:
    plan = row.tenant.plan
    windows = effective(own, {Window.HOUR: plan.mailbox_hour, Window.DAY: plan.mailbox_day})
    return Subject(Kind.MAILBOX, row.mailbox.pk, str(Address(row.local_part, row.domain.name)), windows, row.tenant_id)


def _domain_subject(domain: Domain, own: Mapping[Window, int | None]) -> Subject | None:
    windows = effective(own, {})
    return Subject(Kind.DOMAIN, domain.pk, domain.name, windows, domain.tenant_id) if windows else None
