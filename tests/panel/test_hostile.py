"""Hostile texts on the panel's pages: refused beside their field, or shown harmless.

Every form of the registry (those that add, that change, and the actions') and every page that shows what came by
mail: subjects, Message-IDs, names said in EHLO, replies of other servers, logins.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import models
from django.http import HttpResponse
from django.urls import reverse

from panel.mailboxes.models import Credential, LoginEvent, MailRules
from panel.sending.models import Attempt, Message, Recipient
from panel.tenants.models import AuditEntry, PanelSession
from tests.panel.test_admin_generated import (
    ACTIONS,
    CASES,
    EVERYTHING_AN_ACTION_ASKS,
    REDIRECTS,
    filled,
    named,
    text_fields,
    url,
)
from tests.support.standing import Standing, everything, undone

# PostgreSQL is the stricter about texts: it knows no NUL, and ends them where a column does.
pytestmark = [pytest.mark.django_db, pytest.mark.once("postgresql")]

HTML = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}{% now 'Y' %}{0.__class__} %s </textarea>"
    "</title><!--"
)
HOSTILE = {
    "html": HTML, "script": "javascript:alert(1)", "nul": "a\x00b", "escape": "a\x1b[31mb", "c1": "a\x9b31mb",
    "direction": "a\u202eb\u2066c", "lines": "a\r\nBcc: x@elsewhere.test", "separator": "a\u2028b",
    "long": "x" * 10_240, "wide": "\U0001f4ef" * 300,
}
# What mustn't reach a page from a form, in any field: each was refused, or taken away.
UNSEEN = "\x00\x1b\x9b\u202e\u2066\u2028"


@pytest.fixture
def _django_db_helper(standing: Standing) -> Iterator[None]:
    """In place of pytest-django's, which closes the connection after each test: the world is in its transaction."""
    with undone():
        yield


def is_harmless(answer: HttpResponse) -> bool:
    content = answer.content.decode()
    return not any(text in content for text in (
        "<script>alert(1)", "<img src=x", 'href="javascript:', "href='javascript:", "</textarea>\n</title>", "<class '",
    ))


def pages_of(model: type[models.Model], pk: Any) -> list[str]:
    of_it = [url(model, "change", pk), url(model, "history", pk)]
    return [url(model, "changelist"), *of_it, url(AuditEntry, "changelist")]


def try_all(standing: Standing, model: type[models.Model], where: str, data: dict[str, Any], names: list[str]) -> None:
    """Post the data with each text in each field; look at the pages of the row that was changed, or made."""
    owner = standing.client("owner")
    known = set(model._default_manager.values_list("pk", flat=True))
    before = everything()
    for name in names:
        for kind, text in HOSTILE.items():
            with undone() as inside:
                answer = owner.post(where, {**data, name: text})
                assert is_harmless(answer), (name, kind)
                context = answer.context or {}
                if answer.status_code == 200 and "secret" not in context:
                    form = context["adminform"].form if "adminform" in context else context["form"]
                    assert list(form.errors) == [name], (name, kind, form.errors)
                    inside.is_kept = True
                    continue
                assert answer.status_code in (200, 302), (name, kind)
                if kind not in ("html", "direction", "escape"):
                    continue
                made = model._default_manager.exclude(pk__in=known).values_list("pk", flat=True).first()
                for page in pages_of(model, made or standing.rows[model].mine.pk):
                    shown = owner.get(page)
                    assert is_harmless(shown), (name, kind, page)
                    assert not set(UNSEEN) & set(shown.content.decode()), (name, kind, page)
    assert everything() == before, "what was refused has changed something"


@pytest.mark.parametrize("model", [model for model in CASES if CASES[model].add], ids=named)
def test_an_added_field_refuses_a_hostile_text_or_shows_it_harmless(model, standing):
    form = standing.client("owner").get(url(model, "add")).context["adminform"].form
    data = filled(CASES[model], form, standing.rows[model].add)
    try_all(standing, model, url(model, "add"), data, text_fields(form))


@pytest.mark.parametrize("model", [model for model in CASES if CASES[model].change], ids=named)
def test_a_changed_field_refuses_a_hostile_text_or_shows_it_harmless(model, standing):
    where = url(model, "change", standing.rows[model].mine.pk)
    form = standing.client("owner").get(where).context["adminform"].form
    try_all(standing, model, where, filled(CASES[model], form, CASES[model].change), text_fields(form))


@pytest.mark.parametrize(("model", "name"), [one for one in ACTIONS if one not in REDIRECTS], ids=named)
def test_an_action_s_field_refuses_a_hostile_text_or_shows_it_harmless(model, name, standing):
    owner, pk = standing.client("owner"), standing.rows[model].mine.pk
    first = CASES[model].before.get(name)
    if first:
        assert owner.post(url(model, first, pk), EVERYTHING_AN_ACTION_ASKS).status_code == 302
    where = url(model, name, pk)
    form = owner.get(where).context["form"]
    asked = {key: value for key, value in EVERYTHING_AN_ACTION_ASKS.items() if key in form.fields}
    try_all(standing, model, where, asked, text_fields(form))


# The forms before and beside the admin

SIGN_IN_FORMS = [
    ("/admin/login/", "nobody", {"username": "x@elsewhere.test", "password": "x"}),
    ("/admin/login/forgot/", "nobody", {"email": "x@elsewhere.test"}),
    ("/admin/account/password/", "owner", {"password": "x", "new": "x", "again": "x"}),
    ("/admin/account/second-factor/", "owner", {"password": "x", "code": "1"}),
]


@pytest.mark.parametrize(("where", "role", "data"), SIGN_IN_FORMS, ids=lambda each: str(each)[:30])
@pytest.mark.parametrize("kind", HOSTILE)
def test_the_sign_in_s_forms_answer_a_hostile_text(where, role, data, kind, standing):
    for name in data:
        answer = standing.client(role).post(where, {**data, name: HOSTILE[kind]})
        assert answer.status_code in (200, 429), name
        assert is_harmless(answer), name


@pytest.mark.parametrize("body", [b"name=%ED%A0%80", b"name=%FF%FE", b"name=\xff\xfe", b"=", b"&" * 900, b"%"])
def test_a_body_that_is_no_text_is_no_server_error(body, standing):
    from panel.tenants.models import Tenant

    before = everything()
    for where in (url(Tenant, "add"), url(Tenant, "suspend", standing.rows[Tenant].mine.pk), "/admin/login/"):
        client = standing.client("nobody" if "login" in where else "owner")
        answer = client.post(where, data=body, content_type="application/x-www-form-urlencoded")
        assert answer.status_code in (200, 400), where
    for where in (url(Tenant, "changelist"), reverse("admin:search")):
        for asked in ("q=%ED%A0%80", "q=%FF", "q=%00", "s=%ED%A0%80", "p=%FF", "o=%00"):
            assert standing.client("owner").get(f"{where}?{asked}").status_code in (200, 302, 400, 404), (where, asked)
    assert everything() == before


# What mail, and whoever tries to log in, fills

NOT_SHOWN = ("session_data", "session_key", "secret")
FILLED_BY_OTHERS = [Message, Recipient, Attempt, LoginEvent, AuditEntry, PanelSession, MailRules, Credential]


@pytest.mark.parametrize("text", [HTML, "javascript:alert(1)", "{{ 7*7 }}"], ids=["html", "script", "template"])
def test_what_others_fill_in_is_harmless_on_every_page(text, standing):
    """Every text column, whatever it is: also of what was stored before a check came to be."""
    for model in FILLED_BY_OTHERS:
        for one in model._meta.concrete_fields:
            is_text = isinstance(one, (models.CharField, models.TextField)) and not one.choices
            if is_text and not one.unique and one.name not in NOT_SHOWN:
                model._default_manager.update(**{one.name: text[: one.max_length]})
    charged = {"kind": text, "name": text, "window": text, "used": 1, "allowed": None}
    Message.objects.update(facts={"charged": [charged]})
    AuditEntry.objects.update(before={text: text}, after={text: [text]})
    owner = standing.client("owner")
    for model, rows in standing.rows.items():
        for page in pages_of(model, rows.mine.pk):
            answer = owner.get(page)
            assert answer.status_code == 200, page
            assert is_harmless(answer), page
    for page in (reverse("admin:index"), reverse("account:own")):
        assert is_harmless(owner.get(page)), page
