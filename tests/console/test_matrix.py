"""Every address of the console × every role: what is answered, and that nothing changes where it may not.

The addresses are the URL resolver's, the expectations tests/console/expected.py's.
"""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.translation import override

from panel.console.access import Declared
from panel.console.middleware import STRICT
from panel.database import ids
from panel.tenants.sign_in import sessions
from tests.console.addresses import ALL
from tests.console.expected import (
    AWAY,
    EXPECTED,
    MOST_QUESTIONS,
    NOT_SO,
    NOTHING,
    PAGE,
    QUESTIONS,
    REFUSED,
    SIGN_IN,
    OfAnybody,
    OfAPerson,
    OfATenant,
    OfAVisit,
)
from tests.support.console import ROLES, House
from tests.support.english import JAPANESE, english, known_words
from tests.support.standing import everything, undone
from tests.support.traces import Traces

pytestmark = [pytest.mark.django_db, pytest.mark.once("postgresql")]


@pytest.fixture
def _django_db_helper(house: House) -> Iterator[None]:
    """In place of pytest-django's, which closes the connection after each test: the world is in its transaction."""
    with undone():
        yield


OF_TENANTS = [one for one in ALL if isinstance(EXPECTED.get(one.name), OfATenant)]


def answered(answer: HttpResponse) -> str:
    if answer.status_code == 302:
        return SIGN_IN if answer["Location"].startswith("/sign-in/") else AWAY
    return PAGE if answer.status_code == 200 else str(answer.status_code)


def test_every_view_is_declared_and_has_an_expectation():
    views = {one.name: one.pattern.callback for one in ALL}
    undeclared = [name for name, view in views.items() if not isinstance(getattr(view, "declared", None), Declared)]
    assert not undeclared, "declare it by one of panel/console/access.py"
    assert set(views) == set(EXPECTED), "say in tests/console/expected.py what it answers"
    assert len(ALL) == len(EXPECTED), "two addresses of one name"


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_an_address_answers_each_role_as_expected_and_changes_nothing(one, house):
    expected = EXPECTED[one.name]
    path = one.path(house)
    before = everything()
    wrong = {}
    for role in ROLES:
        with undone():
            seen = Traces()
            got = answered(house.client(role).get(path)), answered(house.client(role).post(path, {}))
            changed = seen.actions
        if got != expected.of(role):
            wrong[role] = f"{got}, expected {expected.of(role)}"
        if expected.of(role)[1] in (REFUSED, NOTHING, NOT_SO) or role in ("anonymous", "closed"):
            assert not changed, (role, changed)
    if not isinstance(expected, OfAnybody):
        role = {OfAPerson: "person", OfAVisit: "support viewing"}.get(type(expected), "owner")
        assert house.client(role).put(path).status_code in (403, 405), "by no other method"
    assert not wrong
    assert everything() == before


@pytest.mark.parametrize("one", [one for one in OF_TENANTS if one.holds != {"tenant"}], ids=lambda one: one.name)
def test_another_tenants_row_is_not_there(one, house):
    """In the own tenant's address stands the id of another's: 404, as for an id that nobody has."""
    path = one.path(house, theirs=True)
    for role in ("owner", "reseller"):
        assert answered(house.client(role).get(path)) in (NOTHING, NOT_SO), role
        assert answered(house.client(role).post(path, {})) in (NOTHING, NOT_SO), role
    assert answered(house.client("support viewing").get(path)) in (NOTHING, NOT_SO, REFUSED)


def test_who_looks_into_one_tenant_finds_no_other(house):
    """Neither another's, nor the reseller's above it: 404 to GET and to POST."""
    client, named = house.client("support viewing"), house.named()
    for one in OF_TENANTS:
        for tenant in (house.beta, house.above):
            rows = {**{name: named[name] for name in one.holds}, "tenant": tenant.pk}
            path = reverse(f"console:{one.name}", kwargs=rows)
            assert (answered(client.get(path)), answered(client.post(path, {}))) == (NOTHING, NOTHING), path


@override("ja")  # the last request's language stays that of the thread
def test_no_page_shows_an_english_word_to_who_reads_japanese(house):
    wrong, known = {}, known_words()
    for one in ALL:
        role = {OfAPerson: "person", OfAnybody: "anonymous"}.get(type(EXPECTED[one.name]), "owner")
        answer = house.client(role).get(one.path(house), headers=JAPANESE)
        if answered(answer) == PAGE and answer["Content-Type"].startswith("text/html"):
            page = answer.content.decode()
            if found := english(page, known):
                wrong[one.name] = found
            assert '<html lang="ja"' in page
    assert not wrong, "\n".join(f"{name}: {each}" for name, texts in wrong.items() for each in texts)


def test_a_page_asks_few_questions_and_says_where_one_is(house, monkeypatch):
    """Also with more rows; at most one thing stands out, and the policy is the strict one."""
    # On a slow machine the house's sessions are older than that by now, and their next page notes that they were seen.
    monkeypatch.setattr(sessions, "SEEN_EVERY", timedelta(days=1))
    assert connection.features.supports_json_field  # asked of the database once in a process
    house.grow()
    wrong = {}
    for one in ALL:
        expected = EXPECTED[one.name]
        role = {OfAPerson: "person", OfAnybody: "anonymous"}.get(type(expected), "owner")
        with CaptureQueriesContext(connection) as asked:
            answer = house.client(role).get(one.path(house))
        if answered(answer) != PAGE or not answer["Content-Type"].startswith("text/html"):
            continue
        text = answer.content.decode()
        title = re.search(r"<title>(.*?)</title>", text, re.S)
        seen = {
            "questions": len(asked) <= QUESTIONS.get(one.name, MOST_QUESTIONS), "heading": text.count("<h1") == 1,
            "title": title is not None and title[1].endswith("Posthouse"), "main act": text.count("btn-primary") <= 1,
            "language": '<html lang="en"' in text, "policy": answer["Content-Security-Policy"] == STRICT,
            "kept by nobody": "no-store" in answer["Cache-Control"],
            "words": not re.search(r"\{[%{]|None\b|\bFalse\b", re.sub(r"<script.*?</script>", "", text, flags=re.S)),
        }
        if not all(seen.values()):
            wrong[one.name] = [what for what, holds in seen.items() if not holds], len(asked)
    assert not wrong
    assert max(QUESTIONS.values()) <= MOST_QUESTIONS


def test_every_change_needs_the_forms_token(house):
    for one in ALL:
        role = {OfAPerson: "person", OfAVisit: "support viewing"}.get(type(EXPECTED[one.name]), "owner")
        answer = house.client(role, enforce_csrf_checks=True).post(one.path(house), {})
        assert answer.status_code in (403, 405), one.name


def test_a_tenant_that_is_not_theirs_is_answered_as_one_that_does_not_exist(house):
    for role in ("other tenant", "no tenant", "person", "support"):
        said = []
        for asked in f"/t/{house.acme.pk}/", "/t/999999999/":
            answer = house.client(role).get(asked)
            # The address that was asked and the token against forged requests are in each page's forms.
            own = re.sub(r'(name="csrfmiddlewaretoken" value=)"\w+"', r"\1", answer.content.decode().replace(asked, ""))
            said.append((answer.status_code, own))
        assert said[0] == said[1], role


def test_no_question_tells_what_another_tenant_has_from_what_nobody_has(house):
    """Lists, filters, pages' keys and the search: the same answer, but for what was asked."""
    row = house.their_message.recipients.get()
    nobody = ids.to_text(house.their_message.pk + 1)
    theirs, pairs = house.customers[1].pk, []
    for name, parameters in {
        "mailboxes": ("q", "domain", "after"), "aliases": ("q", "after"), "domains": ("q", "after"), "search": ("q",),
        "audit": ("q",), "customers": ("q",), "add-mailbox": ("local_part",), "add-alias": ("address", "targets"),
        "add-domain": ("name",),
    }.items():
        pairs += [
            (name, each, asked, asked.replace("eta", "eto")) for each in parameters
            for asked in ("bob@beta.test", "beta.test", "Beta")
        ]
    pairs += [("messages", "q", f"{what}:{asked}", f"{what}:{other}") for what, asked, other in (
        ("to", "bob@beta.test", "bob@beto.test"), ("from", "bob@beta.test", "bob@beto.test"),
        ("domain", "beta.test", "beto.test"), ("id", house.their_message.queue_id, nobody),
    )]
    pairs += [
        ("search", "q", house.their_message.queue_id, nobody), ("customers", "after", str(theirs), str(10**9)),
        ("message-give-up", "recipient", str(row.pk), str(row.pk + 1)), ("tenants", "q", "Beta", "Beto"),
    ]
    for name, parameter, *asked in pairs:
        path = next(one for one in ALL if one.name == name).path(house)
        said = []
        for each in asked:
            answer = house.client("owner").get(path, {parameter: each})
            text = answer.content.decode() + answer.get("Location", "")
            text = re.sub(r'(name="csrfmiddlewaretoken" value=)"\w+"', r"\1", text)
            text = text.replace(nobody, house.their_message.queue_id).replace("eto", "eta")
            said.append((answer.status_code, text.replace(asked[1], asked[0])))
        assert said[0] == said[1], (name, parameter, asked)
