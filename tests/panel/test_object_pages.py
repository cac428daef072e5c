"""The pages of a tenant, a mailbox, a domain, a password and an account: what stands there, and how many questions."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from panel.mailboxes import services as mailboxes
from panel.mailboxes.models import MailboxUsage
from panel.operations import services as operations
from panel.rules.limits import Kind, Rings
from panel.sending import latest
from panel.sending.models import Counter
from panel.sending.services import set_limit
from panel.tenants import services as tenants
from panel.tenants.models import AuditEntry, PanelSession, Plan, Tenant, User
from panel.tenants.sign_in import sessions
from tests.support import queue, world

# The same pages are opened and posted on SQLite by test_admin_generated.
pytestmark = [pytest.mark.django_db, pytest.mark.once("postgresql")]

PASSWORD = "an unusual password"
MOST_QUERIES = 15


@pytest.fixture
def owner() -> User:
    return operations.create_account(
        email="owner@provider.test", password=PASSWORD, provider_role="owner", actor=None
    )


@pytest.fixture
def client(owner) -> Client:
    client = Client()
    client.force_login(owner)
    return client


@pytest.fixture
def acme() -> Tenant:
    """A tenant with acme.test."""
    made = world.tenant("Acme")
    world.domain("acme.test", made)
    return made


def url_of(row) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=(row.pk,))


def text_of(client: Client, where) -> str:
    """What a page says, without its markup; `where` is a URL, or the row whose page it is."""
    page = client.get(where if isinstance(where, str) else url_of(where))
    assert page.status_code == 200
    content = page.content.decode().partition('id="content-main"')[2] or page.content.decode()
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", content)).split())


def charge(kind: Kind, pk: int, *charges: tuple[int, int]) -> None:
    """charge(Kind.MAILBOX, 7, (58, 17)): 17 recipients 58 minutes ago."""
    rings = Rings()
    for minutes, recipients in sorted(charges, reverse=True):
        rings.charge(recipients, timezone.now().timestamp() - 60 * minutes)
    Counter.objects.create(kind=kind, subject=pk, rings=rings.pack())


# --- what changed last ------------------------------------------------------------------


def test_latest_changes_stand_on_the_page_with_who_what_and_why(client, owner, acme):
    box = world.mailbox("ann@acme.test", name="Ann")
    operations.suspend(box, reason="found in a leak", actor=owner)
    said = text_of(client, box)
    assert "suspended status: active → suspended “found in a leak”" in said
    assert "by owner@provider.test" in said
    assert reverse("admin:mailboxes_mailbox_history", args=(box.pk,)) in client.get(url_of(box)).content.decode()


def test_a_limit_is_told_of_on_its_own_page_and_on_that_of_what_it_limits(client, owner, acme):
    box = world.mailbox("ann@acme.test")
    limit = set_limit(box, window="hour", recipients=7, actor=owner)
    assert "limit set recipients in 1 hour: none of its own → 7" in text_of(client, box)
    assert "limit set recipients in 1 hour: none of its own → 7" in text_of(client, limit)


def test_a_number_of_a_plan_that_is_taken_away_reads_as_unlimited(client, acme):
    plan = tenants.create_plan(name="Small", domains=0, mailboxes=10, actor=None)
    tenants.change_plan(plan, domains=None, mailboxes=None, actor=None)
    changes = text_of(client, plan).partition("Latest changes")[2]
    assert "domains: 0 → unlimited" in changes
    assert "mailboxes: 10 → unlimited" in changes
    history = text_of(client, f"/admin/tenants/plan/{plan.pk}/history/")
    assert "domains: unlimited mailboxes: unlimited" in history


def test_only_the_latest_changes_are_shown_and_traces_have_none(client, owner, acme):
    for number in range(12):
        tenants.change_tenant(acme, name=f"Acme {number}", actor=owner)
    said = text_of(client, acme)
    assert "Acme 10 → Acme 11" in said and "Acme 4 → Acme 5" in said
    assert "Acme 2 → Acme 3" not in said, "the latest eight"
    message = queue.message(acme)
    assert "Latest changes" not in text_of(client, message)


def test_a_long_value_is_shown_in_short(client, owner, acme):
    tenants.change_tenant(acme, name="n" * 100, actor=owner)
    changes = text_of(client, acme).partition("Latest changes")[2]
    assert f"Acme → {'n' * 59}…" in changes and "n" * 60 not in changes


def test_sizes_that_changed_are_told_in_words(client, owner, acme):
    box = world.mailbox("ann@acme.test")
    mailboxes.change_mailbox(box, name="", quota_bytes=2 * 2**30, actor=owner)
    mailboxes.change_mailbox(box, name="", quota_bytes=None, actor=owner)
    said = text_of(client, box)
    assert "changed quota: unlimited → 2 GB" in said and "changed quota: 2 GB → unlimited" in said


# --- limits -----------------------------------------------------------------------------


def test_limits_are_bars_with_what_comes_free_and_where_they_come_from(client, owner, acme):
    Plan.objects.filter(pk=acme.plan_id).update(mailbox_day=500, tenant_hour=None, tenant_day=10_000)
    box = world.mailbox("ann@acme.test")
    world.limit(box, hour=60)
    world.limit(box.address.domain, day=8_000)
    charge(Kind.MAILBOX, box.pk, (58, 17), (10, 24))
    charge(Kind.DOMAIN, box.address.domain_id, (30, 7_900))
    charge(Kind.TENANT, acme.pk, (30, 9))
    page = client.get(url_of(box)).content.decode()
    said = text_of(client, box)
    assert re.search(r"This mailbox, 1 hour 41 of 60 41 of 60 17 in [23] min set here", said), said
    assert re.search(r"This mailbox, 24 hours 41 of 500 41 of 500 (17|41) in \d+ h plan Standard", said), said
    assert re.search(r"acme.test, 24 hours 7,900 of 8,000 7,900 of 8,000 7,900 in \d+ h set there", said), said
    assert "acme.test, 1 hour" not in said, "it has no such limit, so nobody counts it"
    assert "Acme, 1 hour 9, unlimited plan Standard" in said
    assert "resets" not in said
    assert '<meter class="ph-meter" min="0" max="60" low="45.0" high="54.0" optimum="0" value="41">' in page
    assert 'ph-gauge is-bad"><span class="ph-num">7,900 of 8,000' in page


def test_what_is_unlimited_is_said_in_words(client, acme):
    box = world.mailbox("ann@acme.test")
    world.limit(box, hour=None, day=0)
    said = text_of(client, box)
    assert "This mailbox, 1 hour 0, unlimited set here" in said
    assert "This mailbox, 24 hours none allowed set here" in said
    assert "The domain acme.test has no limit of its own." in said


def test_a_counter_of_a_later_version_is_no_server_error(client, acme):
    Counter.objects.create(kind=Kind.TENANT, subject=acme.pk, rings=b"\x09later")
    assert "This tenant, 1 hour unknown" in text_of(client, acme)
    assert "unknown" in text_of(client, reverse("admin:tenants_tenant_changelist"))


def test_list_of_tenants_shows_what_was_sent_in_24_hours(client, acme):
    beta = world.tenant("Beta")
    world.limit(beta, day=100)
    world.limit(world.tenant("Gamma"), day=None)
    charge(Kind.TENANT, acme.pk, (30, 9))
    charge(Kind.TENANT, beta.pk, (30, 80), (120, 5))
    said = text_of(client, reverse("admin:tenants_tenant_changelist"))
    assert "Acme Standard 1 0 9 of 10,000" in said
    assert "Beta Standard 0 0 85 of 100" in said
    assert "Gamma Standard 0 0 0, unlimited" in said


# --- the tenant -------------------------------------------------------------------------


def test_tenants_page_tells_what_it_has_of_its_plan(client, acme):
    Plan.objects.filter(pk=acme.plan_id).update(domains=20, mailboxes=2, storage_bytes=10 * 2**30)
    for name in ("ann", "bob"):
        box = world.mailbox(f"{name}@acme.test", quota_bytes=2**30)
        MailboxUsage.objects.create(mailbox=box, used_bytes=3 * 2**20)
        world.app_password(box)
    world.alias("info@acme.test", "ann@acme.test")
    said = text_of(client, acme)
    assert "Domains 1 of 20" in said and "Mailboxes 2 of 2" in said and "Aliases 1, unlimited" in said
    assert "App passwords 2, unlimited" in said
    assert "Storage 2.0 GB given of 10 GB" in said and "6.0 MB of it hold mail" in said


def test_tenants_page_lists_its_domains_people_and_last_messages(client, owner, acme):
    world.domain("pending.test", acme, proof="pending")
    account = operations.create_account(email="ann@elsewhere.test", name="Ann Lee", password=PASSWORD, actor=None)
    tenants.create_membership(user=account, tenant=acme, role="viewer", actor=owner)
    sent = queue.message(acme, subject="Offer 118", reverse_path="shop@acme.test")
    for name in ("bob", "carl", "dora"):
        queue.recipient(sent, f"{name}@slow.test", state="waiting" if name == "carl" else "delivered")
    got = queue.message(None, subject="Re: Offer 118", reverse_path="")
    queue.recipient(got, "ann@acme.test", recipient_tenant=acme)
    other = queue.message(world.tenant("Beta"), subject="of another")
    queue.recipient(other, "x@elsewhere.test")
    said = text_of(client, acme)
    assert "Domains All of them pending.test not proved acme.test sends and receives" in said, "trouble first"
    assert "Ann Lee viewer" in said
    assert f"waiting, 1 of 3 Offer 118 shop@acme.test bob@slow.test and 2 more {sent.queue_id}" in said
    assert f"delivered Re: Offer 118 <> ann@acme.test {got.queue_id}" in said
    assert said.index("Re: Offer 118") < said.index("waiting, 1 of 3"), "the latest first"
    assert "of another" not in said


def test_of_many_domains_the_first_are_shown_and_how_many_there_are(client, acme):
    for number in range(12):
        world.domain(f"d{number}.test", acme)
    operations.suspend(acme.domains.get(name="d7.test"), reason="spam", actor=None)
    said = text_of(client, acme)
    assert "Domains the first 10 of 13 All of them d7.test suspended acme.test sends and receives" in said
    assert "d9.test" not in said


def test_an_empty_tenants_page_says_what_is_missing(client):
    said = text_of(client, world.tenant("Empty"))
    assert "It has no domain of its own yet. Add its first domain" in said
    assert "Nobody of its own signs in to the panel for it." in said
    assert "It has neither sent nor got a message yet." in said
    assert "Nothing has been changed" in said


def test_after_a_refusal_the_page_tells_what_is_stored_and_the_form_what_was_typed(client, acme):
    world.tenant("Beta")
    plan = Plan.objects.create(name="Small", tenant_hour=5)
    page = client.post(url_of(acme), {"name": "Beta", "plan": plan.pk, "notes": ""})
    assert page.status_code == 200 and "name" in page.context["adminform"].form.errors
    assert page.context["told"]["name"] == "Acme"
    assert "plan Standard" in page.content.decode() and "plan Small" not in page.content.decode()
    assert 'value="Beta"' in page.content.decode()


def test_tenants_page_says_who_suspended_its_reseller_and_why(client, owner, acme):
    child = world.tenant("Child", parent=acme)
    assert "Its mailboxes log in, send and receive. A customer of the reseller Acme." in text_of(client, child)
    operations.suspend(acme, reason="unpaid", actor=owner)
    said = text_of(client, child)
    assert "Suspended with the tenant Acme by owner@provider.test just now , because “unpaid”." in said
    said = text_of(client, acme)
    assert "Suspended by owner@provider.test" in said
    assert "acme.test suspended" in said and "sends and receives" not in said, "nor do its domains"


# --- the mailbox ------------------------------------------------------------------------


def test_mailboxes_page_tells_its_state_in_a_sentence(client, owner, acme):
    box = world.mailbox("ann@acme.test", name="Ann Lee")
    assert "ann@acme.test active Sends and receives. Ann Lee, a mailbox of Acme" in text_of(client, box)
    operations.suspend(box, reason="found in a leak", sending_only=True, actor=owner)
    said = text_of(client, box)
    assert "Not allowed to send by owner@provider.test just now , because “found in a leak”." in said
    assert "Logging in and receiving go on" in said
    operations.suspend(acme, reason="unpaid", actor=None)
    said = text_of(client, box)
    assert "suspended Suspended with the tenant Acme by command line just now , because “unpaid”." in said
    operations.close(box, reason="left", actor=owner)
    said = text_of(client, box)
    assert re.search(r"Closed by \S+ just now , because “left”\. .* Until \d{4}-\d\d-\d\d \d\d:\d\d UTC Restore", said)


@pytest.mark.parametrize(("proof", "words"), [
    ("pending", "not proved Neither sends nor receives yet"), ("lapsed", "proof lapsed Receives, but can't send"),
])
def test_mailbox_of_a_domain_that_is_not_proved_says_so(client, acme, proof, words):
    world.domain("other.test", acme, proof=proof)
    assert words in text_of(client, world.mailbox("ann@other.test"))


def test_no_password_is_said_to_work_while_its_mailbox_is_suspended(client, owner, acme):
    box = world.mailbox("ann@acme.test")
    credential, _ = world.app_password(box)
    operations.suspend(box.address.domain, reason="spam", sending_only=True, actor=owner)
    assert "web shop send works" in text_of(client, box), "it still reads"
    operations.suspend(box.address.domain, reason="spam", actor=owner)
    assert "web shop send mailbox suspended" in text_of(client, box)
    said = text_of(client, credential)
    assert "mailbox suspended Its mailbox: Suspended with the domain acme.test by owner@provider.test" in said


def test_mailboxes_page_lists_its_passwords_with_the_ways_to_stop_them(client, owner, acme):
    box = world.mailbox("ann@acme.test")
    shop, _ = world.app_password(box, "web shop", networks=["192.0.2.0/24"], last_used_at=timezone.now())
    old, _ = world.app_password(box, "printer", expires_at=timezone.now() - timedelta(days=1))
    mailboxes.freeze_credential(shop, reason="as never before", actor=owner)
    said = text_of(client, box)
    assert "Main password everything works never Freeze…" in said
    assert "web shop send from 192.0.2.0/24 frozen “as never before” just now Thaw… Revoke…" in said
    assert "printer send expired never Freeze… Revoke…" in said
    page = client.get(url_of(box)).content.decode()
    for name, row in (("unfreeze", shop), ("delete", shop), ("freeze", old)):
        assert reverse(f"admin:mailboxes_credential_{name}", args=(row.pk,)) in page
    main = box.credentials.get(kind="main")
    assert reverse("admin:mailboxes_credential_delete", args=(main.pk,)) not in page


def test_who_only_reads_is_offered_no_button(acme):
    box = world.mailbox("ann@acme.test")
    world.app_password(box)
    reader = Client()
    reader.force_login(operations.create_account(
        email="support@provider.test", password=PASSWORD, provider_role="support", actor=None
    ))
    for row in (box, acme, box.address.domain, box.credentials.first()):
        said = text_of(reader, row)
        for words in ("Freeze", "Revoke", "New app password", "Add alias", "Set a limit", "Change", "Suspend"):
            assert words not in said, (row, words)


def test_mailboxes_page_lists_what_it_sent_and_got_and_what_leads_to_it(client, acme):
    box, other = world.mailbox("ann@acme.test"), world.mailbox("bob@acme.test")
    shop, _ = world.app_password(box)
    world.alias("info@acme.test", "ann@acme.test", "x@elsewhere.test")
    sent = queue.message(acme, subject="Offer 118", credential=shop)
    queue.recipient(sent, "carl@slow.test", state="waiting", holds=1)
    by_other = queue.message(acme, subject="of Bob", credential=other.credentials.get())
    queue.recipient(by_other, "dora@slow.test")
    got = queue.message(None, subject="Question", reverse_path="eva@slow.test")
    queue.recipient(got, "info@acme.test", resolved="ann@acme.test", recipient_tenant=acme)
    said = text_of(client, box)
    assert f"held Offer 118 shop@demo.test carl@slow.test {sent.queue_id}" in said
    assert f"delivered Question eva@slow.test info@acme.test {got.queue_id}" in said
    assert "of Bob" not in said
    assert "Also reached by Add alias info@acme.test" in said


def test_an_empty_mailboxes_page_says_what_is_missing(client, acme):
    said = text_of(client, world.mailbox("ann@acme.test"))
    for words in (
        "No alias leads here.", "Its mail is stored as it comes.", "Nothing was sent yet with one of its passwords.",
        "Nothing came for it yet.", "Nobody has tried to log in.",
    ):
        assert words in said


# --- the domain, the password, the account ----------------------------------------------


def test_domains_page_tells_what_is_in_it_and_what_stands_for_it(client, acme):
    domain = acme.domains.get()
    world.mailbox("ann@acme.test")
    world.alias("info@acme.test", "ann@acme.test")
    world.domain_alias("acme-old.test", domain, proof="pending")
    said = text_of(client, domain)
    assert "acme.test active Sends and receives. A domain of Acme" in said
    assert "Ownership proved Mailboxes 1 Aliases 1" in said
    assert "acme-old.test pending" in said
    page = client.get(url_of(domain)).content.decode()
    listed = f"{reverse('admin:mailboxes_mailbox_changelist')}?address__domain__id__exact={domain.pk}"
    assert f'href="{listed}"' in page
    world.domain("other.test", acme)
    world.mailbox("bob@other.test")
    rows = text_of(client, listed)
    assert "ann@acme.test" in rows and "bob@other.test" not in rows


@pytest.mark.parametrize(("proof", "words"), [
    ("pending", "Its mail isn't taken and nobody sends as it"), ("lapsed", "Receives, but nobody sends as it"),
])
def test_domain_that_is_not_proved_says_what_follows(client, acme, proof, words):
    assert words in text_of(client, world.domain("other.test", acme, proof=proof))


def test_shared_domain_has_no_limit_and_says_whose_addresses_it_holds(client, acme):
    shared = world.domain("isp.test")
    world.mailbox("ann@isp.test", acme)
    world.mailbox("ben@isp.test", world.tenant("Beta"))
    said = text_of(client, shared)
    assert "Tenants who hold them 2" in said
    assert "has no limit of its own: what its mailboxes and their tenants may send decides." in said
    assert "Set a limit" not in said and "No other domain stands for it." in said


def test_passwords_page_shows_its_limits_and_those_above_it(client, owner, acme):
    credential, _ = world.app_password(world.mailbox("ann@acme.test"), last_used_at=timezone.now())
    said = text_of(client, credential)
    assert 'App password “web shop” works Works. Of ann@acme.test · used just now' in said
    assert 'The app password “web shop” has no limit of its own.' in said
    assert "ann@acme.test, 1 hour 0 of 200" in said
    set_limit(credential, window="hour", recipients=200, actor=owner)
    charge(Kind.CREDENTIAL, credential.pk, (10, 190))
    mailboxes.freeze_credential(credential, reason="as never before.", actor=owner)
    said = text_of(client, credential)
    assert "This password, 1 hour 190 of 200" in said
    assert "frozen Frozen just now , because “as never before”. Nobody logs in" in said


def sign_in(account: User, browser: str, ip: str) -> PanelSession:
    client = Client()
    client.force_login(account)
    key = client.cookies["sessionid"].value
    PanelSession.objects.filter(pk=key).update(browser=browser, ip=ip)
    return PanelSession.objects.get(pk=key)


def test_one_session_of_another_account_is_ended_after_a_question_and_audited(client, owner):
    account = operations.create_account(email="ann@elsewhere.test", password=PASSWORD, actor=None)
    phone = sign_in(account, "Mozilla/5.0 (iPhone) Safari/604.1", "203.0.113.9")
    desk = sign_in(account, "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "192.0.2.7")
    where = reverse("admin:account_session_end", args=(account.pk, sessions.name_of(phone.pk)))
    page = client.get(url_of(account)).content.decode()
    assert where in page and phone.pk not in page, "the key is a secret"
    assert "Safari on iPhone, signed in from 203.0.113.9, ends" in text_of(client, where)
    assert PanelSession.objects.filter(pk=phone.pk).exists(), "asking does nothing"
    assert client.post(where).status_code == 302
    assert [each.pk for each in sessions.of(account)] == [desk.pk]
    entry = AuditEntry.objects.get(action="account.session_ended")
    assert (entry.actor, entry.subject_id, entry.ip) == (owner, account.pk, "127.0.0.1")
    assert entry.before == {"from": "203.0.113.9", "browser": "Safari on iPhone"}
    answer = client.get(where, follow=True)
    assert "This session is over already." in answer.content.decode()
    assert client.post(where).status_code == 302
    assert AuditEntry.objects.filter(action="account.session_ended").count() == 1


def test_a_browser_with_an_odd_name_is_only_text(client):
    account = operations.create_account(email="ann@elsewhere.test", password=PASSWORD, actor=None)
    odd = sign_in(account, "{0.password} <script>alert(1)</script>", "203.0.113.9")
    where = reverse("admin:account_session_end", args=(account.pk, sessions.name_of(odd.pk)))
    page = client.get(where).content.decode()
    assert "{0.password} &lt;script&gt;" in page and "argon2" not in page


def test_who_may_not_change_accounts_ends_no_session(client, owner):
    account = operations.create_account(email="ann@elsewhere.test", password=PASSWORD, actor=None)
    theirs = sign_in(account, "Firefox/140.0", "192.0.2.7")
    where = reverse("admin:account_session_end", args=(account.pk, sessions.name_of(theirs.pk)))
    for role in ("support", "operator"):
        other = Client()
        other.force_login(operations.create_account(
            email=f"{role}@provider.test", password=PASSWORD, provider_role=role, actor=None
        ))
        assert other.get(where).status_code == other.post(where).status_code == 403
        assert "Sign out" not in text_of(other, account)
    assert Client().post(where).status_code == 302
    person = world.mailbox("ann@isp.test", world.domain("isp.test") and world.tenant()).person
    assert client.post(reverse("admin:account_session_end", args=(person.pk, "x"))).status_code == 404
    assert sessions.of(account) == [theirs]


def test_own_session_is_marked_and_has_no_button(client, owner):
    said = text_of(client, owner)
    assert "this one" in said and "Sign out" not in said


# --- questions --------------------------------------------------------------------------


def questions(client: Client, where: str) -> int:
    with CaptureQueriesContext(connection) as asked:
        assert client.get(where).status_code == 200
    assert len(asked) <= MOST_QUERIES, [each["sql"][:150] for each in asked]
    return len(asked)


def asks_the_same(client: Client, row, more) -> int:
    """How many queries the page takes with 2 of everything; `more` makes one further of each, by number."""
    for number in range(2):
        more(number)
    where = url_of(row)
    client.get(where)
    first = questions(client, where)
    for number in range(2, 30):
        more(number)
    assert questions(client, where) == first, "a query a row"
    return first


def test_tenants_page_asks_a_fixed_number_of_questions(client, owner, acme):
    child = world.tenant("Child", parent=acme)
    operations.suspend(acme, reason="unpaid", actor=owner)

    def more(number: int) -> None:
        world.domain(f"d{number}.test", child)
        box = world.mailbox(f"m{number}@d{number}.test")
        world.alias(f"a{number}@d{number}.test", str(box))
        account = operations.create_account(email=f"p{number}@elsewhere.test", password=PASSWORD, actor=None)
        tenants.create_membership(user=account, tenant=child, role="viewer", actor=owner)
        message = queue.message(child)
        for each in range(number + 1):
            queue.recipient(message, f"x{each}@elsewhere.test")
        queue.recipient(queue.message(None), str(box), recipient_tenant=child)
        tenants.change_tenant(child, notes=f"note {number}", actor=owner)

    assert asks_the_same(client, child, more) == 15


def test_mailboxes_page_asks_a_fixed_number_of_questions(client, owner, acme):
    world.domain("child.test", world.tenant("Child", parent=acme))
    box = world.mailbox("ann@child.test", quota_bytes=2**30)
    world.rules(box, junk=True)
    operations.suspend(acme, reason="unpaid", actor=owner)

    def more(number: int) -> None:
        credential, _ = world.app_password(box, f"shop {number}")
        world.limit(credential, hour=number)
        world.alias(f"a{number}@child.test", str(box))
        message = queue.message(box.address.tenant, credential=credential)
        for each in range(number + 1):
            queue.recipient(message, f"x{each}@elsewhere.test")
        queue.recipient(queue.message(None), str(box), recipient_tenant=box.address.tenant)
        world.login_event(box)
        mailboxes.change_mailbox(box, name=f"Ann {number}", quota_bytes=box.quota_bytes, actor=owner)

    assert asks_the_same(client, box, more) == 15


def test_domains_page_asks_a_fixed_number_of_questions(client, owner, acme):
    domain = world.domain("child.test", world.tenant("Child", parent=acme))
    operations.suspend(acme, reason="unpaid", actor=owner)

    def more(number: int) -> None:
        world.mailbox(f"m{number}@child.test")
        world.alias(f"a{number}@child.test", "x@elsewhere.test")
        world.domain_alias(f"child{number}.test", domain)
        set_limit(domain, window="hour", recipients=number, actor=owner)

    assert asks_the_same(client, domain, more) == 9


def test_accounts_page_asks_a_fixed_number_of_questions(client, owner):
    account = operations.create_account(email="ann@elsewhere.test", password=PASSWORD, actor=None)

    def more(number: int) -> None:
        sign_in(account, "Firefox/140.0", "192.0.2.7")
        tenants.create_membership(user=account, tenant=world.tenant(f"T{number}"), role="viewer", actor=owner)
        operations.change_account(
            account, email=account.email, name=f"Ann {number}", provider_role="", second_factor_required=False,
            actor=owner,
        )

    assert asks_the_same(client, account, more) == 7


def test_a_message_to_many_of_a_tenant_s_addresses_doesn_t_hide_those_before_it(acme):
    for number in range(3):
        queue.recipient(queue.message(None), f"p{number}@acme.test", recipient_tenant=acme)
    to_all = queue.message(None)
    for number in range(60):
        queue.recipient(to_all, f"p{number}@acme.test", recipient_tenant=acme)
    assert len(latest.of_tenant(acme.pk, 10)) == 4
