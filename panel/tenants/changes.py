"""What every change to the panel's data shares: refusals, clean texts, locks, the caches' notice.

Each change is a service (`services.py` of an app): atomic, audited, told to the mailserver's
caches. A refusal is a ServiceError, whose text is a sentence for whoever asked. Passwords are
hashed before the transaction opens: `hash_password`, or the service does it at its start.
"""

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from zlib import crc32

from django.contrib.auth.hashers import make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, models, transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.rules.status import Status
from panel.tenants.field_words import field_words
from panel.tenants.models import DirectoryChange, Plan, Tenant, User

# Of the passwords that people may choose (sign_in/password_rules).
RULES_IN_WORDS: Any = gettext_lazy(
    "At least 10 characters; no common password, nor one that holds the name or address."
)
MOST_PASSWORD = 200  # characters: SASL PLAIN's line stays below 12,288 bytes (RFC 4954 §4.4)
KEEP: Any = object()  # for a value that a change leaves as it is
MOST_NUMBER = 2**31 - 1  # what a PositiveIntegerField holds on every database

# Turn the direction of text, or end a line: what is shown would not be what is stored (UAX #9).
DECEIVING = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

Row = TypeVar("Row", bound=models.Model)


class ServiceError(ValueError):
    """A change that is refused. The text is a sentence; `field` is the form's field it belongs to, or empty."""

    def __init__(self, sentence: str, field: str = "") -> None:
        super().__init__(sentence)
        self.field = field


class Taken(ServiceError):
    """A name or an address that somebody has already."""


class NotFound(ServiceError):
    """There is nothing of that name."""


class Gone(NotFound):
    """The row was deleted in the meantime."""


class AlreadySo(ServiceError):
    """There is nothing to do: it is so already."""


@dataclass(frozen=True, slots=True)
class HashedPassword:
    """A password that was checked and hashed before the transaction."""

    stored: str = field(repr=False)


def hash_password(password: "str | HashedPassword", about: User | None = None) -> HashedPassword:
    """The password, checked by the validators of the settings and hashed: 26 ms, so call it before atomic().

    `about` is the account that it may not resemble. Raises ServiceError (field "password").
    """
    if isinstance(password, HashedPassword):
        return password
    check_password_rules(password, about)
    return HashedPassword(make_password(password))


def check_password_rules(password: str, about: User | None = None) -> None:
    """Refuse a password that the validators of the settings do. Raises ServiceError (field "password")."""
    if any(unicodedata.category(character) in ("Cc", "Cs") or character in DECEIVING for character in password):
        raise ServiceError(_("The password holds a control character."), "password")
    if len(password) > MOST_PASSWORD:
        raise ServiceError(_("The password is longer than {most} characters.").format(most=MOST_PASSWORD), "password")
    try:
        validate_password(password, about)
    except ValidationError as error:
        raise ServiceError(" ".join(error.messages), "password") from None


def one_line(text: str, field: str, *, most: int, required: bool = False) -> str:
    """The text without white space around it, in NFC. Raises ServiceError when it is no clean single line."""
    text = unicodedata.normalize("NFC", str(text).strip())
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") or character in DECEIVING:
            raise ServiceError(_("The {field} holds a line break, a control or a direction character.").format(
                field=field_words(field)
            ), field)
    return _bounded(text, field, most, required)


def many_lines(text: str, field: str, *, most: int) -> str:
    """Like `one_line`, but with line breaks (as LF) and tabs."""
    text = unicodedata.normalize("NFC", str(text).replace("\r\n", "\n").strip())
    for character in text:
        if character not in "\n\t" and (unicodedata.category(character) in ("Cc", "Cs") or character in DECEIVING):
            raise ServiceError(
                _("The {field} holds a control or a direction character.").format(field=field_words(field)), field
            )
    return _bounded(text, field, most, required=False)


def number(value: int | None, field: str, *, most: int = MOST_NUMBER) -> int | None:
    """The value, when it is none or a whole number from 0 to `most`. Raises ServiceError."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most):
        return value
    raise ServiceError(_("{field}: write a whole number from 0 to {most}, or nothing.").format(
        field=field_words(field).capitalize(), most=most
    ), field)


def choice(value: str, choices: type[models.TextChoices], field: str) -> str:
    """The value, when it is one of the choices. Raises ServiceError naming them."""
    if value in choices.values:
        return str(value)
    names = ", ".join(str(name) for name in choices.values if name)
    raise ServiceError(_("{field} {value!r} is unknown: write one of {names}.").format(
        field=field_words(field).capitalize(), value=str(value), names=names
    ), field)


def _bounded(text: str, field: str, most: int, required: bool) -> str:
    if len(text) > most:
        raise ServiceError(_("The {field} is longer than {most} characters.").format(
            field=field_words(field), most=most
        ), field)
    if required and not text:
        raise ServiceError(_("Write a {field}.").format(field=field_words(field)), field)
    return text


def lock(row: Row, *, to_delete: bool = False) -> Row:
    """The row as it is now, locked until the end of the transaction. Raises Gone.

    Several are locked from the left: tenant, domain, address, mailbox. On SQLite the
    transaction itself is the lock.
    """
    rows = type(row)._default_manager.select_for_update(of=("self",), no_key=not to_delete)
    fresh = rows.filter(pk=row.pk).first()
    if fresh is None:
        raise Gone(_("{name} is no longer here.").format(name=row))
    return fresh


def owners_alone(actor: User | None, account: User | None = None, *, role: str = "") -> None:
    """Refuse whoever is no owner of the provider's what concerns another account with a role there, or such a role.

    Without an actor it is the command line, or the account itself by a link that it was sent. The admin lets nobody
    else come this far; this holds for every door.
    """
    if actor is None or actor.is_superuser:
        return
    with_a_role = User.objects.filter(pk=account.pk if account else 0).exclude(provider_role="")
    if role or with_a_role.exclude(pk=actor.pk).exists():
        raise ServiceError(_("Only an owner of the provider's changes accounts that have a role there."))


def alone(task: str) -> None:
    """Wait until nobody else is in `task`, until the end of the transaction: for rules that span tables."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [crc32(f"posthouse {task}".encode())])


def write(row: Row, **values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the values that differ from what is stored; gives them before and after, empty when none does.

    Raises Gone. `row` itself carries the new values afterwards.
    """
    stored = lock(row)
    after = {name: value for name, value in values.items() if getattr(stored, name) != value}
    before = {name: getattr(stored, name) for name in after}
    if after and not type(row)._default_manager.filter(pk=row.pk).update(**after):
        raise Gone(_("{name} is no longer here.").format(name=row))
    for name, value in values.items():
        setattr(row, name, value)
    return before, after


@contextmanager
def taken_means(sentence: str | Callable[[], str], field: str) -> Iterator[None]:
    """A unique constraint that refuses what is done inside becomes this sentence (Taken)."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError:
        raise Taken(sentence if isinstance(sentence, str) else sentence(), field) from None


def delete(row: models.Model, sentence: str) -> None:
    """Delete the row. Raises ServiceError with the sentence when others need it, Gone when it is gone."""
    try:
        with transaction.atomic():
            deleted, _rows = type(row)._default_manager.filter(pk=row.pk).delete()
    except (models.ProtectedError, models.RestrictedError, IntegrityError):
        raise ServiceError(sentence) from None
    if not deleted:
        raise Gone(_("{name} is no longer here.").format(name=row))


def changed(*domains: str) -> None:
    """Tell the mailserver's caches that these domains changed."""
    DirectoryChange.objects.bulk_create(DirectoryChange(domain=name) for name in sorted(set(filter(None, domains))))


def everything_changed() -> None:
    """Tell the mailserver's caches to forget all that they hold."""
    DirectoryChange.objects.create(domain="")


def tenant_changed(tenant: Tenant) -> None:
    """Tell the caches of each domain of the tenant and its children, and each in which they hold an address."""
    family = models.Q(pk=tenant.pk) | models.Q(parent=tenant) | models.Q(parent__parent=tenant)
    tenants = Tenant.objects.filter(family).values("pk")
    own = Tenant.objects.filter(pk__in=tenants, domains__isnull=False).values_list("domains__name").order_by()
    held = Tenant.objects.filter(pk__in=tenants, addresses__isnull=False).values_list("addresses__domain__name")
    changed(*(name for (name,) in own.union(held.order_by())))


def count_against_plan(tenant: Tenant, what: str, count: Callable[[Tenant], int], *, more: int = 1) -> Tenant:
    """Lock the tenant, and refuse `more` of `what` (a number of its plan) than that allows.

    Holds under parallel creation: who comes second waits for the lock and counts the first.
    Each tenant has a plan of its own, and what stands below it counts on theirs. Raises
    ServiceError; also for a closed tenant.
    """
    locked = lock(tenant)
    if locked.status == Status.CLOSED:
        raise ServiceError(_("The tenant {name} is closed.").format(name=locked), "tenant")
    # What is there stays when the plan becomes smaller; only what is made is measured.
    allowed = Plan.objects.values_list(what, flat=True).get(pk=locked.plan_id)
    if allowed is None:
        return locked
    used = count(locked)
    if used + more > allowed:
        number_of = Plan._meta.get_field(what)
        told = _(
            "The plan {plan} allows {allowed:,} {what}; {tenant} has {used:,}, and {more:,} more are asked for. "
            "Choose a larger plan first."
        ) if more > 1 else _(
            "The plan {plan} allows {allowed:,} {what}; {tenant} has {used:,}. Choose a larger plan first."
        )
        raise ServiceError(told.format(
            plan=locked.plan, allowed=allowed, what=getattr(number_of, "verbose_name", what), tenant=locked, used=used,
            more=more,
        ))
    return locked
