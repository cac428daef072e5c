"""Acme's day as those see to it who write what they shouldn't, wherever others may fill something in.

Each text column has its own mark in it, so that a test can tell where it is shown; whatever a check at the edge
takes away or refuses stands here all the same: it may have been stored before there was that check.
"""

from email.message import EmailMessage
from pathlib import Path

from django.apps import apps
from django.db import models
from django.db.models import F, UniqueConstraint
from django.utils import timezone

from panel.domains.models import Domain, DomainCheck
from panel.mailboxes.models import BlockEntry, Credential, LoginEvent, MailRules
from panel.rules.status import Status
from panel.sending.models import Message, Recipient
from panel.tenants.models import AuditEntry, Passkey, Plan, SecondFactor, Tenant
from tests.support import ordinary_day, queue, world
from tests.support.console import House
from tests.support.hostile_html import RUN, SPECIMENS

BREAKS_OUT = f"</title></textarea></script>\"'><img src=x onerror={RUN}>{{{{7*7}}}}"
LONGEST = 500  # of a word that nobody may break: it has neither blank nor hyphen
# What decides, or is found by: nobody's free text.
KEYS = {
    "secret", "password", "token", "opaque_id", "digest", "began_as", "session_key", "session_data", "language",
    "proof_key", "credential_id", "challenge", "network", "account", "guess", "sha256", "key", "local_part",
    "domain_name", "action", "subject_type", "to", "purpose", "about", "user_kind", "proved_by",
}
OURS = ("tenants", "domains", "mailboxes", "sending", "operations")


def mark(model: type[models.Model], column: str) -> str:
    """What tells this column's text from all others."""
    return f"~{model.__name__}.{column}"


def columns() -> list[tuple[type[models.Model], "models.Field"]]:
    """Those that hold what somebody wrote."""
    return [
        (model, field) for app in OURS for model in apps.get_app_config(app).get_models()
        for field in model._meta.concrete_fields
        if type(field) in (models.CharField, models.TextField) and not field.choices and not field.unique
        and field.name not in KEYS
    ]


def furnish(house: House, data: Path) -> None:
    """Rows of each kind, as ordinary_day has them, with hostile texts; letters for Ann under `data`."""
    ordinary_day.furnish(house, data)
    name = ".".join(["w" * 60] * 4)
    world.domain(name, house.acme)
    world.mailbox(f"{'m' * 64}@{name}")
    for each in house.message.recipients.all():
        queue.attempt(each)
    BlockEntry.objects.create(mailbox=house.mailbox, sender="x@elsewhere.test")
    Credential.objects.filter(pk=house.password.pk).update(frozen_at=timezone.now())
    Tenant.objects.filter(pk=house.acme.pk).update(status=Status.NO_SENDING)
    Domain.objects.filter(name="acme-events.test").update(status=Status.SUSPENDED)
    factor = SecondFactor.objects.create(user=house.accounts["owner"])
    Passkey.objects.create(factor=factor, credential_id="x", public_key=b"x", name="x")
    for model, field in columns():
        text = f"{mark(model, field.name)}{BREAKS_OUT}{'W' * LONGEST}"
        text = text if field.max_length is None else text[: field.max_length]
        if any(field.name in each.fields for each in model._meta.constraints if isinstance(each, UniqueConstraint)):
            for pk in model._default_manager.values_list("pk", flat=True):
                model._default_manager.filter(pk=pk).update(**{field.name: f"{text[:-8]}{pk}"})
        else:
            model._default_manager.update(**{field.name: text})
    long = f"{BREAKS_OUT}{'W' * LONGEST}"
    Plan.objects.filter(pk=house.acme.plan_id).update(name=long[:100])
    AuditEntry.objects.update(before={long: [long]}, after={long: {long: long}, "name": long})
    Message.objects.update(facts={"charged": [
        {"kind": long, "name": long, "window": "day", "used": 1, "allowed": 2}, {"window": long, "name": long},
    ]})
    MailRules.objects.update(forward_to=[long])
    # Of where a message goes only what its sender may know is shown: not what another's alias leads to.
    Recipient.objects.update(resolved=F("original"))
    LoginEvent.objects.filter(outcome=LoginEvent.Outcome.WRONG).update(credential=None)
    for check in DomainCheck.objects.all():
        for answer in check.found.get("answers", ()):
            answer |= {"values": [*answer["values"], long], "error": long}
        check.found |= {"included": [long], "nameservers": [long]}
        check.save(update_fields=["found"])
    _letter(house, data)


def _letter(house: House, data: Path) -> None:
    folder = data / "mail" / house.mailbox.opaque_id[:2] / house.mailbox.opaque_id / "Maildir" / "cur"
    written = EmailMessage()
    long = f"{BREAKS_OUT}{'W' * LONGEST}\u202ecod.exe"
    written["From"] = f'"{BREAKS_OUT.replace(chr(34), "")}" <{"x" * 60}@elsewhere.test>'
    written["To"], written["Subject"] = str(house.mailbox), long
    written.set_content(long)
    written.add_alternative("".join(SPECIMENS).replace("\x00", "").replace("\x1b", ""), subtype="html")
    written.add_attachment(b"x", maintype="text", subtype="html", filename=f"{long}.html")
    for each in folder.iterdir():
        if each.name.startswith("1790000000.M1.mail"):
            each.write_bytes(written.as_bytes())
