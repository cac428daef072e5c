"""Where everybody begins: the first steps, a tenant's home, the choice of tenants; and what is no page."""

import pytest
from django.test import Client, RequestFactory
from django.utils import timezone

from panel.console import refusal
from panel.domains.models import Domain
from panel.operations import services as operations
from panel.sending.models import Recipient
from panel.tenants import services as tenants
from panel.tenants.models import User
from tests.support import queue, world

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme():
    return world.tenant("Acme")


@pytest.fixture
def client(acme) -> Client:
    account = User.objects.create(kind=User.Kind.PANEL, email="ann@letters.test", name="Ann", password="!")
    tenants.create_membership(user=account, tenant=acme, role="owner", actor=None)
    client = Client()
    client.force_login(account)
    return client


def home(client: Client, tenant) -> str:
    answer = client.get(f"/t/{tenant.pk}/")
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_first_steps_tick_themselves_until_a_first_message_came(client, acme):
    page = home(client, acme)
    assert "3 steps left, Ann" in page and page.count('class="step done"') == 1
    domain = world.domain("acme.test", acme, proof="pending")
    page = home(client, acme)
    assert "waits for proof" in page and "Its records: 4 to add" in page and "Add from a CSV file" in page
    Domain.objects.filter(pk=domain.pk).update(proof="proved")
    page = home(client, acme)
    assert "2 steps left, Ann" in page and page.count('class="step done"') == 2
    mailbox = world.mailbox("ann@acme.test")
    page = home(client, acme)
    assert "2 steps left, Ann" in page and "<code>ann@acme.test</code> is there. Send it a message" in page
    assert 'hx-target="#main" hx-swap="outerHTML" hx-trigger="every 5s"' in page, "what comes is shown, whichever page"
    credential, _secret = world.app_password(mailbox, frozen_at=timezone.now(), frozen_reason="stolen")
    assert "stolen" in home(client, acme), "what needs somebody comes first"
    credential.delete()
    queue.waiting(acme, "ann@acme.test")
    assert "Nothing needs you" in home(client, acme)


def test_home_says_what_needs_somebody_the_worst_first_and_nothing_of_others(client, acme):
    world.domain("acme.test", acme)
    mailbox = world.mailbox("ann@acme.test")
    world.domain("new.test", acme, proof="pending")
    world.domain("old.test", acme, proof="lapsed")
    operations.suspend(mailbox, reason="sent spam", actor=None)
    queue.waiting(acme, "bob@elsewhere.test")
    other = world.tenant("Other")
    world.domain("foreign.test", other, proof="lapsed")
    # What is behind another tenant's address is one line, and what it leads to isn't said.
    row = queue.waiting(acme, "list@foreign.test")
    Recipient.objects.filter(pk=row.pk).update(resolved="spy@elsewhere.test", recipient_tenant=other)
    again = Recipient.objects.get(pk=row.pk)
    again.pk, again.resolved, again.state = row.pk + 1, "spy2@elsewhere.test", "failed"
    again.save(force_insert=True)
    queue.waiting(other, "spy@elsewhere.test")
    came = queue.recipient(queue.message(reverse_path="kim@far.test", subject="Theirs"), "ann@acme.test", tenant=acme)
    Recipient.objects.filter(pk=came.pk).update(recipient_tenant=acme)
    unnamed = queue.recipient(queue.message(acme, subject=""), "lea@elsewhere.test")
    page = home(client, acme)
    assert f'{came.message.queue_id}/"><code>kim@<wbr>far.<wbr>test</code></a> for' in page and "Theirs" not in page
    assert f'{unnamed.message.queue_id}/">(no subject)</a>' in page
    order = [page.index(text) for text in ("old.test: its proof lapsed", "new.test waits for proof", "sent spam")]
    assert "3 things need you" in page and order == sorted(order)
    assert "bob@<wbr>elsewhere" in page and "Waiting" in page
    assert page.count("list@<wbr>foreign.<wbr>test") == 1 and "spy" not in page
    assert "foreign.test: its proof" not in page


def test_a_suspended_tenant_is_told_why(client, acme):
    world.domain("acme.test", acme)
    world.mailbox("ann@acme.test")
    operations.suspend(acme, reason="unpaid", actor=None)
    page = home(client, acme)
    assert "Acme is suspended." in page and "unpaid" in page


def test_names_are_shown_as_they_are_typed_and_run_nothing(client, acme):
    tenants.change_tenant(acme, name="<script>alert(1)</script>\"'{{7*7}}", actor=None)
    for path in (f"/t/{acme.pk}/", f"/t/{acme.pk}/people/", f"/t/{acme.pk}/audit/", "/tenants/"):
        page = client.get(path).content.decode()
        assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page and "{{7*7}}" in page, path


def test_the_choice_of_tenants_lists_ones_own_and_searches_them(client, acme):
    below = world.tenant("Below", parent=acme)
    world.tenant("Foreign")
    page = client.get("/tenants/").content.decode()
    assert f'href="/t/{acme.pk}/"' in page and f'href="/t/{below.pk}/"' in page and "Foreign" not in page
    assert b"has \xe2\x80\x9cForeign\xe2\x80\x9d" in client.get("/tenants/?q=Foreign").content
    nobody = Client()
    nobody.force_login(User.objects.create(kind=User.Kind.PANEL, email="none@letters.test", password="!"))
    assert b"You are in no organisation" in nobody.get("/tenants/").content


@pytest.mark.parametrize("path", ["/nothing/", "/t/0/", f"/t/{10**30}/", "/t/-1/", "/t/1/people/x/"])
def test_what_is_not_there_is_said_in_our_look(path, client):
    answer = client.get(path)
    assert answer.status_code == 404 and b"There is nothing here" in answer.content
    assert b'class="door"' in answer.content


def test_a_forged_form_and_a_failure_are_told_in_our_look():
    forged = Client(enforce_csrf_checks=True).post("/sign-in/", {"username": "x", "password": "y"})
    assert forged.status_code == 403 and b"nothing was changed" in forged.content
    failed = refusal.failed(RequestFactory().get("/"))
    assert failed.status_code == 500 and b"in our log" in failed.content
    assert refusal.forbidden(RequestFactory().get("/")).status_code == 403


def test_the_theme_is_the_cookies_and_nothing_else_comes_into_the_page_by_it(client, acme):
    for value, shown in (("dark", ' data-bs-theme="dark">'), ("light", ' data-bs-theme="light">'), ('"><b>', ">")):
        client.cookies["theme"] = value
        assert f'<html lang="en"{shown}' in home(client, acme)
