"""Form fields of the pages of mailboxes and aliases: an address, several lines, a size, a number of recipients."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django import forms
from django.db.models import Q
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from panel.console.places import TenantPlace
from panel.domains.models import Domain
from panel.rules.status import Status
from panel.tenants import form_fields
from panel.tenants.changes import MOST_NUMBER

MOST_DOMAINS = 100  # that are offered for an address
_TYPED = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}


def end_of(day: date | None) -> datetime | None:
    """Midnight after this day in UTC."""
    try:
        return datetime.combine(day + timedelta(days=1), time(), UTC) if day else None
    except OverflowError:
        return datetime.combine(day, time(), UTC) if day else None


def last_day_of(end: datetime | None) -> date | None:
    """The last day of what ends then."""
    return (end.astimezone(UTC) - timedelta(microseconds=1)).date() if end else None


def domains_for_addresses(place: TenantPlace) -> list[Domain]:
    """Where the tenant may place addresses itself: its own domains, and shared ones that its plan names."""
    shared = Q(kind=Domain.Kind.SHARED, plans=place.tenant.plan_id)
    rows = Domain.objects.filter(Q(tenant=place.tenant) | shared).exclude(status=Status.CLOSED)
    # By the alphabet "own" comes before "shared", and "proved" last.
    return list(rows.order_by("kind", "-proof", "name").distinct()[:MOST_DOMAINS])


class AddressInput(forms.TextInput):
    """A text whose "@" offers the domains (console.js); they stand beside it as a list."""

    domains: Sequence[str] = ()

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        listed = f"{(attrs or {}).get('id', name)}-domains"
        box = super().render(name, value, {**(attrs or {}), "list": listed, "data-domains": True}, renderer)
        options = format_html_join("", '<option value="@{}"></option>', ((each,) for each in self.domains))
        return format_html('{}<datalist id="{}">{}</datalist>', box, listed, options)


class AddressField(forms.CharField):
    """An address in one of the domains; without an "@" in the only one."""

    widget = AddressInput

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("error_messages", {
            "required": gettext_lazy("Write an address: a name, the @ and one of your domains."),
        })
        super().__init__(max_length=320, **kwargs)
        self.widget.attrs |= _TYPED
        self.domains: list[str] = []

    def offer(self, domains: Sequence[Domain]) -> None:
        """Say which domains there are; the first is that of the example."""
        self.domains = [each.name for each in domains]
        self.widget.domains = self.domains
        if self.domains:
            self.widget.attrs["placeholder"] = f"ann@{self.domains[0]}"

    def to_python(self, value: Any) -> str:
        text = super().to_python(value) or ""
        return f"{text}@{self.domains[0]}" if text and "@" not in text and len(self.domains) == 1 else text


class LinesField(form_fields.LinesField):
    """One value a line, or several with a comma between, as a list."""

    def __init__(self, *, rows: int = 3, **kwargs: Any) -> None:
        super().__init__(widget=forms.Textarea(attrs={"rows": rows, **_TYPED}), **kwargs)

    def to_python(self, value: Any) -> Any:
        return super().to_python(str(value or "").replace(",", "\n"))


class SizeField(form_fields.SizeField):
    """A number of bytes, written as "5 GB". Empty: None."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widget.attrs |= {**_TYPED, "maxlength": "40"}


class RecipientsField(forms.IntegerField):
    """A number of recipients. Empty: as the provider gave."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("error_messages", {
            "invalid": gettext_lazy("Write a whole number, or leave it empty."),
            "min_value": gettext_lazy("Write 0 or more, or leave it empty."),
        })
        super().__init__(required=False, min_value=0, max_value=MOST_NUMBER, **kwargs)
