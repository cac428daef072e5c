"""Many mailboxes at once: a CSV, looked through before anything is made, then all of it or nothing.

Between the look and the making the text is in the page alone: nothing is kept here.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO, StringIO
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from panel.console.access import tenant_page
from panel.console.fields import SizeField, domains_for_addresses
from panel.console.frame import page
from panel.console.mailboxes import add_errors, crumbs, new_password, usual_quota
from panel.console.places import Role, TenantPlace
from panel.mailboxes import sheet
from panel.mailboxes.importing import exported, import_rows
from panel.mailboxes.sheet import BadRows, Errors, Row
from panel.rules.cells import harmless
from panel.tenants.changes import ServiceError
from panel.tenants.shown import size

MOST_BYTES = 512 * 1024
MOST_ROWS = 300  # a password takes 26 ms to hash, while somebody waits for the page
SHOWN = 50  # rows and errors


class SheetForm(forms.Form):
    """A file or the same as text, and what holds where it says nothing."""

    file = forms.FileField(
        label=gettext_lazy("A file"), required=False, allow_empty_file=True,
        widget=forms.FileInput({"accept": ".csv,text/csv,text/plain"}),
    )
    text = forms.CharField(
        label=gettext_lazy("Or its text"), required=False, strip=False, max_length=MOST_BYTES,
        widget=forms.Textarea({
            "rows": 8, "spellcheck": "false", "autocomplete": "off",
            "placeholder": "address,name,quota,password\nann@acme.example,Ann,5 GB,\nbob@acme.example,Bob,,",
        }),
    )
    quota_bytes = SizeField(
        label=gettext_lazy("Storage, where a line says none"),
        help_text=gettext_lazy("Such as 5 GB. Empty: unlimited."),
    )

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        file = data.get("file")
        if file and file.size > MOST_BYTES:
            self.add_error("file", _("The file is larger than {most}: split it.").format(most=size(MOST_BYTES)))
        elif file:
            data["bytes"] = file.read()
        elif data.get("text", "").strip():
            data["bytes"] = data["text"].encode()
        elif not self.errors:
            self.add_error("file", _("Choose a file, or paste its text."))
        return data


@dataclass(frozen=True, slots=True)
class Looked:
    """What a sheet holds, and what is wrong with it."""

    rows: Sequence[Row]
    errors: Sequence[tuple[int, str]]
    refused: str  # of the whole: the plan's numbers, or no CSV at all

    @property
    def shown_rows(self) -> Sequence[Row]:
        return self.rows[:SHOWN]

    @property
    def shown_errors(self) -> Sequence[tuple[int, str]]:
        return self.errors[:SHOWN]

    @property
    def made(self) -> int:
        """How many of the passwords we make."""
        return sum(not row.password for row in self.rows)

    @property
    def is_good(self) -> bool:
        return bool(self.rows) and not self.errors and not self.refused


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def add(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """Look it through; with `sure` and nothing wrong make them all."""
    given = (request.POST, request.FILES) if request.method == "POST" else (None, None)
    form = SheetForm(given[0], given[1], initial={"quota_bytes": usual_quota(place)})
    looked = None
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        rows, looked = _look(place, data["bytes"], data["quota_bytes"])
        if "sure" in request.POST and looked.is_good:
            answer = _make(request, place, form, rows, looked)
            if answer is not None:
                return answer
    domains = domains_for_addresses(place)
    return page(
        request, place, "console/mailboxes_add.html", _("Add mailboxes from CSV"), crumbs=crumbs(place), form=form,
        looked=looked, text=_text(form), example=domains[0] if domains else "acme.example", most=MOST_ROWS,
        back=reverse("console:mailboxes", args=[place.tenant.pk]),
        again=reverse("console:add-mailboxes", args=[place.tenant.pk]),
    )


@tenant_page()
def export(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """The same columns back, without passwords and their hashes."""
    answer = HttpResponse(_written(exported(place.tenant, with_hashes=False)), content_type="text/csv")
    answer["Content-Disposition"] = 'attachment; filename="mailboxes.csv"'
    return answer


def _written(rows: Iterable[Mapping[str, str]]) -> str:
    """The text of the file."""
    columns = ("address", "name", "quota")
    file = StringIO(newline="")
    sheet = csv.writer(file, lineterminator="\r\n")
    sheet.writerow(columns)
    sheet.writerows([harmless(row[column]) for column in columns] for row in rows)
    return file.getvalue()


def _look(place: TenantPlace, data: bytes, quota_bytes: int | None) -> tuple[list[Row], Looked]:
    """The rows as they are to be made, and what is to be said of them. Nothing is hashed or written."""
    errors, rows = Errors(), []
    try:
        rows = sheet.read_file(BytesIO(data), _("The text"), errors, without_passwords=True)
        if len(rows) > MOST_ROWS:
            raise ServiceError(
                _("It holds {count} mailboxes: {most} at most go at once.").format(count=len(rows), most=MOST_ROWS)
            )
        for row in rows:
            if row.stored:
                errors.add(row.line, _("A hash can't be taken over here: ask your provider to import the file."))
        rows = [replace(row, quota_bytes=quota_bytes) if row.quota_bytes is None else row for row in rows]
        import_rows(rows, errors, place.tenant, check=True, actor=place.account, ip=place.ip)
    except BadRows:
        pass  # each stands beside its line
    except ServiceError as error:
        return rows, Looked(rows, errors.lines, str(error))
    return rows, Looked(rows, errors.lines, "")


def _make(
    request: HttpRequest, place: TenantPlace, form: SheetForm, rows: Sequence[Row], looked: Looked
) -> HttpResponse | None:
    """All of them; those passwords that we made are shown in the answer, and never again."""
    made = [replace(row, password=new_password()) if not row.password else row for row in rows]
    try:
        import_rows(made, Errors(), place.tenant, actor=place.account, ip=place.ip)
    except ServiceError as error:
        add_errors(form, error)
        return None
    said = ngettext("{count} mailbox is there", "{count} mailboxes are there", len(made)).format(count=len(made))
    back = reverse("console:mailboxes", args=[place.tenant.pk])
    if not looked.made:
        messages.success(request, f"{said}.")
        return HttpResponseRedirect(back)
    secrets = [(row.address, after.password) for row, after in zip(rows, made, strict=True) if not row.password]
    return page(
        request, place, "console/mailboxes_added.html", said, crumbs=crumbs(place), secrets=secrets, back=back
    )


def _text(form: SheetForm) -> str:
    """What was given, to be sent once more; nothing where it can't be text."""
    try:
        return str(form.cleaned_data["bytes"].decode("utf-8-sig"))
    except (AttributeError, KeyError, UnicodeDecodeError):
        return ""
