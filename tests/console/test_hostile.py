"""What no browser sends: each form of the console with values of the wrong kind, and with fields that it doesn't show.

The forms are those of the pages, read as a browser reads them. Whatever comes is refused beside its field or taken,
never our fault, and nothing of another tenant's changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest
from django.apps import apps
from django.db.models import Q
from django.http import HttpResponse
from django.urls import resolve
from django.utils.http import urlencode

from panel.tenants.models import AuditEntry, Plan, Tenant, User
from panel.tenants.scoping import ScopedQuerySet
from tests.console.addresses import ALL
from tests.console.expected import EXPECTED, PAGE, OfAnybody, OfAPerson, OfAVisit
from tests.support import world
from tests.support.console import House
from tests.support.standing import undone

pytestmark = [pytest.mark.django_db, pytest.mark.once("postgresql")]  # the stricter about texts

HTML = "</textarea><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}{0.__class__} %s"
# In one field at a time, so that it comes as far as it can. None of them is a day, or a row.
TEXTS, CHOSEN = (HTML, "9223372036854775808", "\u0663\u0662"), ("9" * 40,)
# What no text is, in all fields at once. As bytes: half a surrogate pair can't be written otherwise.
NO_TEXT = b"-1\x00\xed\xa0\x80\xff"
NOT_TYPED = ("hidden", "select", "radio", "checkbox", "submit", "button", "file")
# What somebody is asked for, where the page doesn't say it already.
FILLED = {
    "address": "new@acme.test", "name": "new.acme-x.test", "targets": "ann@acme.test", "label": "New",
    "email": "new@elsewhere.test", "owner": "new@elsewhere.test", "reason": "because", "password": world.PASSWORD,
    "new": "another horse battery", "again": "another horse battery", "text": "address,name\nnew@acme.test,New\n",
    "mailbox_password": world.PASSWORD, "account_password": world.PASSWORD, "username": "new@elsewhere.test",
    "code": "123456", "way": "typed", "act": "join",
}
# As one address asks for them.
ALSO = {
    "close-tenant": {"name": "Acme"}, "add-customer": {"name": "New"}, "mailbox-change": {"name": "Ann"},
    "account-add-mailbox": {"address": "ann@acme.test"}, "me-add-account": {"email": "reseller@elsewhere.test"},
    "change-customer": {"name": "New"}, "add-mailbox": {"name": "New"},
    "add-mailboxes": {"sure": "1"},
}


@pytest.fixture
def _django_db_helper(house: House) -> Iterator[None]:
    """In place of pytest-django's, which closes the connection after each test: the world is in its transaction."""
    with undone():
        yield


@dataclass
class Form:
    """A form of a page: its fields with what stands in them, and of what kind each is."""

    action: str
    is_posted: bool
    values: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)


class Forms(HTMLParser):
    """The forms of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[Form] = []
        self._open: Form | None = None
        self._inside = ""  # the select or textarea
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open = Form(said.get("action", ""), said.get("method", "") == "post")
            self.found.append(self._open)
        if self._open is None or not (said.get("name") or tag == "option"):
            return
        if tag in ("select", "textarea"):
            self._inside = said["name"]
            self._open.kinds[self._inside] = tag
            self._open.values.setdefault(self._inside, "")
        elif tag == "option" and self._inside:
            if "selected" in said or not self._open.values[self._inside]:
                self._open.values[self._inside] = said.get("value", "")
        elif tag in ("input", "button"):
            kind = said.get("type", "text")
            self._open.kinds[said["name"]] = kind
            if kind not in ("radio", "checkbox") or "checked" in said:
                self._open.values[said["name"]] = said.get("value", "on" if kind == "checkbox" else "")

    def handle_data(self, data: str) -> None:
        if self._open and self._open.kinds.get(self._inside) == "textarea":
            self._open.values[self._inside] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None
        if tag in ("select", "textarea"):
            self._inside = ""


def forms(house: House) -> Iterator[tuple[str, str, str, Form]]:
    """Each form that is posted, once: its address's name, who sends it, where to, and what it is."""
    known = set()
    for one in ALL:
        expected = EXPECTED[one.name]
        role = {OfAPerson: "person", OfAnybody: "anonymous", OfAVisit: "support viewing"}.get(type(expected), "owner")
        if expected.of(role)[0] != PAGE:
            continue
        path = one.path(house)
        with undone():
            answer = house.client(role).get(path)
        if not answer["Content-Type"].startswith("text/html"):
            continue
        for form in Forms(answer.content.decode()).found:
            where = form.action or path
            name = str(resolve(where.partition("?")[0]).url_name)
            if form.is_posted and (name, *sorted(form.kinds)) not in known:
                known.add((name, *sorted(form.kinds)))
                yield name, role, where, form


def beta(house: House) -> list[Any]:
    """Every row of Beta's and of its customer's, and who may do what at the provider."""
    theirs = [house.beta.pk, house.customers[1].pk]
    found: list[Any] = [list(User.objects.exclude(provider_role="").order_by("pk").values_list())]
    found.append(list(Tenant.objects.filter(pk__in=theirs).order_by("pk").values_list()))
    for model in apps.get_models():
        rows = model._default_manager.all()
        if isinstance(rows, ScopedQuerySet) and model is not Tenant:
            found.append(list(rows.filter(**{f"{model.to_tenant}__in": theirs}).order_by("pk").values_list()))
    return found


def test_no_form_fails_at_a_hostile_value_or_takes_a_field_that_it_does_not_show(house):
    Plan.objects.update(customers=None, for_customers=True)
    unseen = {
        "tenant": house.beta.pk, "tenant_id": house.beta.pk, "parent": house.beta.pk, "domain": house.theirs.pk,
        "mailbox": house.their_mailbox.pk, "alias": house.their_alias.pk, "id": house.their_mailbox.pk,
        "credential": house.their_password.pk, "user": house.accounts["other tenant"].pk, "status": "3",
        "proof": "proved", "verified": "on", "kind": "panel", "is_staff": "on", "is_superuser": "on",
        "provider_role": "owner", "is_active": "", "store": "lmtp", "notes": "x", "_method": "DELETE",
    }
    before, newest = beta(house), AuditEntry.objects.order_by("-pk").values_list("pk", flat=True)[0]
    of_beta = AuditEntry.objects.filter(Q(tenant=house.beta) | Q(tenant=house.customers[1]), pk__gt=newest)
    taken, asked = set(), 0

    def post(role: str, where: str, data: dict[str, Any]) -> HttpResponse:
        body = urlencode({**unseen, **data})
        answer = house.client(role).post(where, body, content_type="application/x-www-form-urlencoded")
        assert answer.status_code in (200, 302, 400, 403, 404, 429), (where, data)
        text = answer.content.decode()
        assert "<script>alert(1)" not in text and "<img src=x" not in text, (where, data)
        assert not of_beta.exists(), (where, data)
        return answer

    for name, role, where, form in list(forms(house)):
        data = {
            each: form.values.get(each, "").strip() or FILLED.get(each, "") for each, kind in form.kinds.items()
            if each != "csrfmiddlewaretoken" and kind not in ("file", "checkbox")
        }
        if form.kinds.get("way"):
            data["way"] = "typed"
        data |= ALSO.get(name, {})
        with undone():
            if post(role, where, data).status_code == 302:
                taken.add(name)
            assert beta(house) == before, name
        with undone():
            post(role, where, dict.fromkeys(data, NO_TEXT))
        for each, kind in form.kinds.items():
            for value in () if each == "csrfmiddlewaretoken" else CHOSEN if kind in NOT_TYPED else TEXTS:
                asked += 1
                with undone():
                    post(role, where, {**data, each: value})
    assert asked > 200 and len(taken) > 45, "the forms aren't found, or not filled so that they are taken"
