"""A tenant's mailboxes, app passwords and aliases: what a member may do, and what a hostile one tries."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.test import Client
from django.utils import timezone

from panel.console import app_passwords
from panel.console import mailbox as mailbox_page
from panel.domains.models import Domain
from panel.mailboxes import passwords, services
from panel.mailboxes.models import Address, Alias, Credential, Mailbox, MailboxUsage
from panel.operations import services as operations
from panel.rules.status import Status
from panel.sending.models import Counter, SendingLimit
from panel.sending.services import inherit_limit, set_limit
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, DirectoryChange, Plan, User
from tests.support import queue, world

pytestmark = pytest.mark.django_db


class Acme:
    """A tenant with an admin at the browser, beside another tenant and a shared domain."""

    def __init__(self) -> None:
        self.tenant, self.other = world.tenant("Acme"), world.tenant("Beta")
        self.domain = world.domain("acme.test", self.tenant)
        world.domain("beta.test", self.other)
        self.shared = world.domain("isp.test")
        self.ann = world.mailbox("ann@acme.test")
        self.theirs = world.mailbox("bob@beta.test")
        self.admin = User.objects.create(kind=User.Kind.PANEL, email="admin@letters.test", password="!")
        tenants.create_membership(user=self.admin, tenant=self.tenant, role="admin", actor=None)
        self.client = Client()
        self.client.force_login(self.admin)

    def plan(self, **numbers) -> None:
        self.tenant.plan = Plan.objects.create(name="Small", **numbers)
        self.tenant.save(update_fields=["plan"])

    def get(self, path: str, **query) -> str:
        answer = self.client.get(f"/t/{self.tenant.pk}/{path}", query)
        assert answer.status_code == 200, answer.status_code
        return answer.content.decode()

    def post(self, path: str, status: int = 200, **fields) -> str:
        answer = self.client.post(f"/t/{self.tenant.pk}/{path}", fields, follow=True)
        assert answer.status_code == status, answer.status_code
        return answer.content.decode()

    def of_ann(self, act: str = "") -> str:
        return f"mailboxes/{self.ann.pk}/{act}"


@pytest.fixture
def acme():
    return Acme()


def secret_in(page: str) -> str:
    """What the page shows once: the second value with a copy button."""
    return re.findall(r'data-copy="([^"]+)"', page)[1]


def faults(page: str) -> str:
    return " ".join(re.findall(r'<p class="fault".*?</p>|<div class="banner is-bad.*?</div>\n', page, re.S))


# The list


def test_the_list_has_the_tenants_own_also_in_shared_domains_searched_filtered_and_paged(acme):
    world.mailbox("sue@isp.test", acme.tenant, name="Sue Miller")
    world.mailbox("tom@isp.test", acme.other)
    for number in range(30):
        world.mailbox(f"m{number:02}@acme.test", quota_bytes=1000)
    full = Mailbox.objects.get(address__local_part="m07")
    MailboxUsage.objects.create(mailbox=full, used_bytes=900, messages=3, known_at=timezone.now())
    operations.suspend(full, reason="left the company", actor=acme.admin)
    page = acme.get("mailboxes/")
    assert "32 mailboxes" in page and "One is nearly full" in page and "One is suspended" in page
    assert "ann@acme.test" in page and "m23@" in page and "m24@" not in page
    assert "left the company" in page and "beta.test" not in page and "tom@" not in page
    assert f"/{acme.of_ann('change/')}" in page, "a limit is three clicks from home"
    second = acme.get("mailboxes/", after="m23@acme.test")
    assert "m24@" in second and "sue@isp.test" in second and "m23@" not in second and 'rel="next"' not in second
    for query, found in (
        ({"q": "m0"}, 10), ({"q": "sue mil"}, 1), ({"q": "bob"}, 0), ({"q": "@isp.test"}, 1), ({"q": "m07@acme"}, 1),
        ({"q": "%"}, 0), ({"q": "<b>x"}, 0), ({"state": "suspended"}, 1), ({"state": "full"}, 1),
        ({"domain": "isp.test"}, 1), ({"domain": "beta.test"}, 0), ({"after": "\x00'@acme.test"}, 25),
        ({"domain": "beta.test\x00"}, 0),
        ({"state": "nonsense", "domain": "isp.test"}, 1),
    ):
        text = acme.get("mailboxes/", **query)
        assert len(re.findall('class="go mono"', text)) == found, query
        assert "<b>x" not in text


@pytest.mark.once("postgresql")
def test_without_a_mailbox_the_list_says_what_comes_first(acme):
    bare = world.tenant("Bare")
    tenants.create_membership(user=acme.admin, tenant=bare, role="admin", actor=None)
    page = acme.client.get(f"/t/{bare.pk}/mailboxes/").content.decode()
    assert "No mailboxes yet" in page and "Add the domain first" in page and "/mailboxes/add/" not in page
    world.domain("bare.test", bare)
    page = acme.client.get(f"/t/{bare.pk}/mailboxes/").content.decode()
    assert f"/t/{bare.pk}/mailboxes/add/" in page


# Adding


@pytest.mark.once("postgresql")
def test_a_mailbox_is_added_with_a_password_that_is_shown_once(acme):
    page = acme.post("mailboxes/add/", address="Carl", name="Carl", way="made", quota_bytes="2 GB")
    made = Mailbox.objects.get(address__local_part="carl")
    assert (made.name, made.quota_bytes, str(made)) == ("Carl", 2 * 1024**3, "carl@acme.test")
    assert passwords.verify_main(secret_in(page), made.credentials.get().secret)
    entry = AuditEntry.objects.get(action="mailbox.created")
    assert (entry.actor, entry.tenant) == (acme.admin, acme.tenant)
    assert DirectoryChange.objects.filter(domain="acme.test").exists()
    page = acme.post("mailboxes/add/", address="dora@acme.test", way="typed", password="an unusual one")
    assert "dora@acme.test is there." in page and "an unusual one" not in page
    for fields, field in (
        ({"address": "ann@acme.test", "way": "made"}, "it is a mailbox"),
        ({"address": "", "way": "made"}, "Write an address"),
        ({"address": "e@acme.test", "way": "typed"}, "Type the password"),
        ({"address": "e@acme.test", "way": "made", "password": "an unusual one"}, "leave this empty"),
        ({"address": "e@acme.test", "way": "typed", "password": "12345"}, "short"),
        ({"address": "e@acme.test", "way": "made", "quota_bytes": "much"}, "no size"),
        ({"address": "e+x@acme.test", "way": "made"}, "subaddress"),
    ):
        page = acme.post("mailboxes/add/", **fields)
        assert field in faults(page) and "<title>Error:" in page, fields
    assert Mailbox.objects.filter(address__tenant=acme.tenant).count() == 3


@pytest.mark.once("postgresql")
def test_no_form_tells_of_others_or_takes_what_is_theirs(acme):
    """A domain of another tenant's and one that nobody hosts are answered alike, whatever is in them."""
    User.objects.create(kind=User.Kind.PANEL, email="boss@acme.test", password="!")
    world.domain_alias("beta-alias.test", Domain.objects.get(name="beta.test"))
    before = Address.objects.count()
    for path, more in (("mailboxes/add/", {"way": "made"}), ("aliases/add/", {"targets": "ann@acme.test"})):
        said = {
            name: faults(acme.post(path, address=f"bob@{name}", tenant=acme.other.pk, domain="1", **more))
            .replace(name, "X")
            for name in ("beta.test", "nowhere.test", "beta-alias.test")
        }
        assert len(set(said.values())) == 1 and "none of your domains" in said["beta.test"], said
        assert "given by the provider" in faults(acme.post(path, address="new@isp.test", **more))
    assert "panel account" not in acme.post("mailboxes/add/", address="boss@acme.test", way="made")
    assert Address.objects.count() == before
    # Where an alias leads isn't looked at: an address of another tenant's and none are taken alike.
    said = {
        acme.post("aliases/add/", address=f"{name}@acme.test", targets=f"{name}@beta.test").count("is there.")
        for name in ("bob", "nobody")
    }
    assert said == {1}
    for name in ("bob", "nobody"):
        Alias.objects.get(address__local_part=name, address__domain=acme.domain)


@pytest.mark.once("postgresql")
def test_in_a_shared_domain_of_the_plan_only_free_addresses_are_taken_that_speak_for_nobody_else(acme):
    acme.shared.plans.add(acme.tenant.plan)
    world.mailbox("tom@isp.test", acme.other)
    world.alias("info@isp.test", "tom@isp.test", owner=acme.other)
    for name, said in (
        ("tom", "taken already."), ("info", "taken already."), ("postmaster", "speaks for the whole domain"),
        ("Abuse", "speaks for the whole domain"), ("hostmaster", "speaks for the whole domain"),
    ):
        assert said in faults(acme.post("mailboxes/add/", address=f"{name}@isp.test", way="made")), name
        assert said in faults(acme.post("aliases/add/", address=f"{name}@isp.test", targets="ann@acme.test")), name
    assert "no catch-all" in faults(acme.post("aliases/add/", address="@isp.test", targets="ann@acme.test"))
    acme.post("mailboxes/add/", address="sue@isp.test", way="made")
    assert Mailbox.objects.get(address__domain=acme.shared, address__local_part="sue").address.tenant == acme.tenant
    assert services.create_alias(
        address="postmaster@isp.test", targets=["a@b.test"], tenant=acme.tenant, actor=None
    )


@pytest.mark.once("postgresql")
def test_the_plans_numbers_hold(acme):
    # More than any disk holds: sums of it would be no number of the database's, on nobody's page.
    for huge in (str(2**44 + 1), str(2**63 - 1), "9999999 TB"):
        page = acme.post("mailboxes/add/", address="b", way="made", quota_bytes=huge)
        assert "16 TB of storage at most" in faults(page)
        assert "16 TB of storage at most" in faults(acme.post(acme.of_ann("change/"), quota_bytes=huge))
        page = acme.post("mailboxes/add/many/", text="address\nb@acme.test\n", quota_bytes=huge, sure="1")
        assert "larger than any disk" in page
    acme.plan(mailboxes=2, aliases=1, credentials=1, storage_bytes=3 * 1024**3)
    Mailbox.objects.filter(pk=acme.ann.pk).update(quota_bytes=1024**3)
    assert "give the mailbox a quota" in faults(acme.post("mailboxes/add/", address="b", way="made"))
    assert "3 GB of storage" in faults(acme.post("mailboxes/add/", address="b", way="made", quota_bytes="5 GB"))
    acme.post("mailboxes/add/", address="b", way="made", quota_bytes="1 GB")
    assert "allows 2 mailboxes" in faults(acme.post("mailboxes/add/", address="c", way="made", quota_bytes="1 GB"))
    assert "3 GB of storage" in faults(acme.post(acme.of_ann("change/"), quota_bytes="3 GB"))
    acme.post("aliases/add/", address="x", targets="ann@acme.test")
    assert "allows 1 aliases" in faults(acme.post("aliases/add/", address="y", targets="ann@acme.test"))
    for _ in range(2):
        page = acme.post(acme.of_ann("app-passwords/add/"), label="shop", scopes="submission")
    assert "allows 1 app passwords" in faults(page)
    assert (Mailbox.objects.count(), Alias.objects.count()) == (3, 1)


# A mailbox's page


def test_a_mailboxs_page_shows_its_own_and_nothing_of_others(acme):
    one, _ = world.app_password(acme.ann, "shop", frozen_at=timezone.now(), frozen_reason="stolen")
    world.alias("info@acme.test", "ann@acme.test", "carl@acme.test")
    spying = world.alias("spy@beta.test", "ann@acme.test")
    Alias.objects.filter(pk=spying.pk).update(description="x")
    world.rules(acme.ann, forward_to=["ann@letters.test"])
    sent = queue.message(acme.tenant, credential=one, subject="Offer 118")
    queue.recipient(sent, "lena@slow.test", state="waiting")
    queue.recipient(sent, "bob@beta.test")
    # What a foreign address leads to is not told: neither where, nor to how many.
    for hidden in ("x1@beta.test", "x2@beta.test"):
        queue.recipient(sent, "all@beta.test", resolved=hidden, recipient_tenant=acme.other)
    queue.recipient(queue.message(subject="Not yours"), "info@acme.test", resolved="ann@acme.test",
                    recipient_tenant=acme.tenant)
    world.limit(acme.ann, hour=60)
    page = acme.get(acme.of_ann())
    assert "Sends and receives." in page and "One of 2 passwords is frozen" in page and "“stolen”" in page
    assert "0 of 60" in page and "set here" in page and "Forwards to" in page and "with 1 other" in page
    assert "Waiting" in page and "Offer 118" in page and "and 2 more" in page
    assert "Not yours" not in page and "spy@" not in page and "x1@" not in page
    Mailbox.objects.filter(pk=acme.ann.pk).update(quota_bytes=1000)
    MailboxUsage.objects.update_or_create(mailbox=acme.ann, defaults={"used_bytes": 1000, "known_at": timezone.now()})
    page = acme.get(acme.of_ann())
    assert "new mail doesn't fit in" in page.replace("&#x27;", "'") and "Sends and receives." not in page


@pytest.mark.once("postgresql")
def test_a_viewer_sees_and_is_offered_nothing_that_changes(acme):
    viewer = User.objects.create(kind=User.Kind.PANEL, email="viewer@letters.test", password="!")
    tenants.create_membership(user=viewer, tenant=acme.tenant, role="viewer", actor=None)
    world.app_password(acme.ann)
    alias = world.alias("info@acme.test", "ann@acme.test")
    acme.client.force_login(viewer)
    for path in ("mailboxes/", acme.of_ann(), "aliases/"):
        main = acme.get(path).partition("<main")[2]
        assert not any(act in main for act in ("/add/", "/change/", "/freeze/", f"/aliases/{alias.pk}/")), path


@pytest.mark.once("postgresql")
def test_an_app_password_is_made_frozen_thawed_and_revoked(acme):
    there = acme.of_ann("app-passwords/add/")
    tomorrow = (timezone.now() + timedelta(days=1)).date()
    page = acme.post(
        there, label="shop", scopes=["submission"], networks="192.0.2.0/24\n2001:db8::/32", last_day=str(tomorrow)
    )
    one = Credential.objects.get(label="shop")
    assert one.secret == passwords.hash_app(secret_in(page)) and one.networks == ["192.0.2.0/24", "2001:db8::/32"]
    assert one.expires_at.date() == tomorrow + timedelta(days=1)
    for fields, said in (
        ({"label": "x"}, "Choose at least one"), ({"label": "x", "scopes": "admin"}, "Select a valid choice"),
        ({"label": "x", "scopes": "imap", "networks": "here"}, "not a network"),
        ({"label": "x", "scopes": "imap", "last_day": "2020-01-01"}, "expired already"),
    ):
        assert said in faults(acme.post(there, **fields)), fields
    its = acme.of_ann(f"passwords/{one.pk}/")
    acme.post(f"{its}freeze/", reason="stolen")
    one.refresh_from_db()
    assert one.frozen_reason == "stolen"
    log = acme.client.get(f"/t/{acme.tenant.pk}/audit/", headers={"accept-language": "ja"}).content.decode()
    assert "アプリパスワード「shop」" in log and ": ann@acme.test</p>" in log, "in the reader's words"
    acme.post(f"{its}unfreeze/")
    one.refresh_from_db()
    assert one.frozen_at is None
    acme.post(f"{its}freeze/", reason="stolen again")
    services.freeze_credential(one, reason="abuse", actor=None)
    assert "frozen by your provider: make another one" in acme.post(f"{its}unfreeze/")
    acme.post(f"{its}revoke/")
    main = acme.ann.credentials.get()
    assert "be revoked" in acme.post(acme.of_ann(f"passwords/{main.pk}/revoke/"))
    foreign = acme.theirs.credentials.get()
    for act in ("freeze", "unfreeze", "revoke"):
        acme.post(acme.of_ann(f"passwords/{foreign.pk}/{act}/"), 404, reason="x")
    assert Credential.objects.count() == 2


# What is done to it


@pytest.mark.once("postgresql")
@pytest.mark.once("postgresql")
def test_of_many_app_passwords_the_page_shows_the_newest_and_leads_to_all(acme, monkeypatch):
    for module in (mailbox_page, app_passwords):
        monkeypatch.setattr(module, "MOST_PASSWORDS", 3)
    labels = [f"Program {number:02}" for number in range(7)]
    for label in labels:
        world.app_password(acme.ann, label)
    page = acme.get(acme.of_ann())
    assert re.findall(r'<th scope="row">(Program \d\d)', page) == labels[4:] and "Main password" in page
    where, seen, before = acme.of_ann("app-passwords/"), [], {}
    assert where in page
    for _ in range(3):
        listed = acme.get(where, **before)
        seen += re.findall(r'<th scope="row">(Program \d\d)', listed)
        before = {"before": m[1]} if (m := re.search(r'before=(\d+)" rel="next"', listed)) else {}
    assert seen == labels[::-1] and not before and "Main password" not in listed
    for odd in ("x", "-1", "9" * 30):
        assert labels[6] in acme.get(where, before=odd)


def test_suspend_resume_close_and_restore_with_the_reason_in_the_audit_log(acme):
    def status() -> Status:
        return Status(Mailbox.objects.get(pk=acme.ann.pk).status)

    assert "Say why" in faults(acme.post(acme.of_ann("suspend/"), what="sending"))
    acme.post(acme.of_ann("suspend/"), what="sending", reason="new password needed")
    assert status() is Status.NO_SENDING
    acme.post(acme.of_ann("suspend/"), what="all", reason="left the company")
    assert status() is Status.SUSPENDED
    entry = AuditEntry.objects.filter(action="mailbox.suspended").first()
    assert (entry.reason, entry.actor) == ("left the company", acme.admin)
    assert "is active again" in acme.post(acme.of_ann("resume/")) and status() is Status.ACTIVE
    assert "not suspended" in acme.post(acme.of_ann("resume/"))
    asked = acme.get(acme.of_ann("close/"))
    page = acme.post(acme.of_ann("close/"))
    acme.ann.refresh_from_db()
    assert f"restore it until {acme.ann.grace_ends_at:%Y-%m-%d};" in asked, "what is asked says until when"
    assert status() is Status.CLOSED and "can be restored" in page and "/restore/" in page and "/password/" not in page
    assert "is back as it was" in acme.post(acme.of_ann("restore/")) and status() is Status.ACTIVE
    acme.theirs.refresh_from_db()
    assert acme.theirs.status == Status.ACTIVE


def test_what_the_provider_suspended_or_closed_no_tenant_undoes(acme):
    operations.suspend(acme.ann, reason="spam", sending_only=True, actor=None)
    acme.post(acme.of_ann("suspend/"), what="all", reason="mine now")
    page = acme.get(acme.of_ann())
    assert "Your provider did that" in page and "/resume/" not in page and "/close/" not in page
    assert "suspended by your provider" in acme.post(acme.of_ann("resume/"))
    assert "suspended by your provider" in acme.post(acme.of_ann("close/"))
    acme.ann.refresh_from_db()
    assert acme.ann.status == Status.SUSPENDED
    operations.resume(acme.ann, actor=None)
    operations.close(acme.ann, actor=None)
    assert "closed by your provider" in acme.post(acme.of_ann("restore/"))
    operations.restore(acme.ann, actor=None)
    acme.post(acme.of_ann("suspend/"), what="all", reason="mine")
    assert "is active again" in acme.post(acme.of_ann("resume/"))
    acme.post(acme.of_ann("suspend/"), what="all", reason="mine first")
    operations.suspend(acme.ann, reason="spam", actor=None)
    assert "suspended by your provider" in acme.post(acme.of_ann("resume/"))
    with pytest.raises(operations.AlreadySuspended):
        operations.suspend(acme.ann, reason="spam", actor=None)


@pytest.mark.once("postgresql")
def test_a_password_is_set_made_or_typed_and_sessions_end_with_the_old_one(acme):
    page = acme.post(acme.of_ann("password/"), way="made")
    assert passwords.verify_main(secret_in(page), acme.ann.credentials.get().secret)
    page = acme.post(acme.of_ann("password/"), way="typed", password="ann@acme.test 1")
    assert "<title>Error:" in page
    acme.post(acme.of_ann("password/"), way="typed", password="another unusual one")
    assert passwords.verify_main("another unusual one", acme.ann.credentials.get().secret)


def test_a_tenant_chooses_limits_up_to_what_the_provider_gave(acme):
    acme.plan(mailbox_hour=100, mailbox_day=None)

    def own() -> dict[str, int | None]:
        return dict(SendingLimit.objects.filter(mailbox=acme.ann).values_list("window", "recipients"))

    change = acme.of_ann("change/")
    acme.post(change, name="Ann", hour="60", day="500")
    assert own() == {"hour": 60, "day": 500}
    assert "gave 100" in faults(acme.post(change, name="Other", hour="101")) and own()["hour"] == 60
    acme.ann.refresh_from_db()
    assert acme.ann.name == "Ann", "all of it or nothing"
    acme.post(change, name="Ann")
    assert own() == {}, "as the plan"
    set_limit(acme.ann, window="hour", recipients=40, actor=None)
    assert "gave 40" in faults(acme.post(change, name="Ann", hour="50"))
    acme.post(change, name="Ann", hour="10")
    assert "gave 40" in faults(acme.post(change, name="Ann", hour="41"))
    acme.post(change, name="Ann")
    assert own() == {"hour": 40}, "the provider's again"
    inherit_limit(acme.ann, window="hour", actor=None)
    acme.post(change, name="Ann", hour="100")
    assert own() == {}
    for subject in (acme.tenant, acme.ann):
        with pytest.raises(ServiceError):
            set_limit(subject, window="hour", recipients=None, actor=acme.admin)
    assert not Counter.objects.exists()


# Aliases


@pytest.mark.once("postgresql")
def test_aliases_are_added_changed_and_removed_and_no_neighbours_is_touched(acme):
    theirs = world.alias("info@beta.test", "bob@beta.test")
    acme.post("aliases/add/", address="info", targets="ann@acme.test, x@letters.test", description="The desk")
    page = acme.post("aliases/add/", address="noone", targets="ann+x@acme.test, an@acme.test, an@beta.test")
    assert "Nobody has an@acme.test: what leads there" in page, "of what others have nothing is told"
    Alias.objects.filter(address__local_part="noone").delete()
    Address.objects.filter(local_part="noone").delete()
    acme.post("aliases/add/", address="@acme.test", targets="ann@acme.test")
    one = Alias.objects.get(address__local_part="info", address__domain=acme.domain)
    assert set(one.targets.values_list("target", flat=True)) == {"ann@acme.test", "x@letters.test"}
    acme.post(f"aliases/{one.pk}/", targets="ann@acme.test\nbob@beta.test", description="Desk")
    one.refresh_from_db()
    assert one.description == "Desk" and one.targets.count() == 2
    for fields, said in (
        ({"targets": "info@acme.test"}, "lead back to itself"), ({"targets": "nonsense"}, "nonsense"),
        ({"targets": ""}, "at least one address"),
    ):
        page = acme.post(f"aliases/{one.pk}/", description="Desk", **fields)
        assert said in faults(page) and "Error:" in page, fields
    page = acme.get("aliases/")
    assert "catch-all" in page and "info@acme.test" in page and "info@beta.test" not in page
    for typed, count in (("info", 1), ("bob@beta", 1), ("desk", 1), ("@acme.test", 2), ("x@", 0), ("%", 0)):
        assert acme.get("aliases/", q=typed).count('aria-label="Delete ') == count, typed
    page = acme.post(f"aliases/{one.pk}/remove/")
    again = re.search(r'is deleted; its address is free again\. <a href="([^"]+)', page)
    form = acme.client.get(unescape(again[1])).context["form"]
    assert {name: form[name].value() for name in form.fields} == {
        "address": "info@acme.test", "targets": "ann@acme.test\nbob@beta.test", "description": "Desk", "last_day": "",
    }, "one click makes it anew"
    for act in ("", "remove/"):
        acme.post(f"aliases/{theirs.pk}/{act}", 404, targets="ann@acme.test")
    assert set(Alias.objects.values_list("address__local_part", flat=True)) == {"", "info"}
    assert list(theirs.targets.values_list("target", flat=True)) == ["bob@beta.test"]
    assert not Address.objects.filter(local_part="info", domain=acme.domain).exists(), "the address is free again"


@pytest.mark.once("postgresql")
def test_an_alias_ends_with_its_last_day_and_is_renewed_by_one_click(acme):
    theirs = world.alias("info@beta.test", "bob@beta.test")
    Alias.objects.filter(pk=theirs.pk).update(expires_at="2026-01-01T00:00:00Z")
    yesterday, day = (timezone.now().date() + timedelta(days=each) for each in (-1, 3))
    said = faults(acme.post("aliases/add/", address="fair", targets="ann@acme.test", last_day=str(yesterday)))
    assert "expired already" in said
    acme.post("aliases/add/", address="fair", targets="ann@acme.test", last_day=str(day))
    one = Alias.objects.get(address__local_part="fair")
    assert f"{one.expires_at:%Y-%m-%d %H:%M}" == f"{day + timedelta(days=1)} 00:00"
    page = acme.get("aliases/")
    assert ">in 3 days<" in page and "expires" in page and "/renew/" not in page
    # What has expired keeps its end when something else is changed, and a moment of its own stays to the minute.
    for end in (timezone.now() - timedelta(days=2), timezone.now() + timedelta(minutes=90)):
        Alias.objects.filter(pk=one.pk).update(expires_at=end)
        form = acme.get(f"aliases/{one.pk}/")
        shown = re.search(r'name="last_day" value="([^"]*)"', form)[1]
        acme.post(f"aliases/{one.pk}/", targets="ann@acme.test", description=f"Until {end}", last_day=shown)
        one.refresh_from_db()
        assert one.expires_at == end and one.description == f"Until {end}"
    Alias.objects.filter(pk=one.pk).update(expires_at=timezone.now() - timedelta(days=2))
    assert "2 days ago" in acme.get("aliases/") and "2 days ago" in acme.get(acme.of_ann())
    assert "/renew/" in acme.get("aliases/") and "It has expired" in acme.get(f"aliases/{one.pk}/")
    acme.post(f"aliases/{one.pk}/renew/")
    one.refresh_from_db()
    assert timedelta(days=29) < one.expires_at - timezone.now() < timedelta(days=31)
    assert AuditEntry.objects.filter(action="alias.changed").first().after["expires_at"]
    acme.post(f"aliases/{one.pk}/", targets="ann@acme.test", last_day="")
    one.refresh_from_db()
    assert one.expires_at is None
    acme.post(f"aliases/{one.pk}/renew/")
    acme.post(f"aliases/{theirs.pk}/renew/", 404)
    one.refresh_from_db()
    theirs.refresh_from_db()
    assert one.expires_at is None and theirs.expires_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.once("postgresql")
def test_a_loop_through_another_tenants_alias_hides_where_that_leads(acme):
    world.alias("in@beta.test", "secret@beta.test")
    world.alias("secret@beta.test", "back@acme.test")
    said = faults(acme.post("aliases/add/", address="back", targets="in@beta.test"))
    assert "lead back to itself" in said and "secret" not in said


# Many at once


@pytest.mark.once("postgresql")
def test_a_sheet_is_looked_through_before_anything_is_made(acme):
    text = "address,name,quota,password\nc@acme.test,Carl,1 GB,an unusual one\nd@acme.test,,,\n"
    page = acme.post("mailboxes/add/many/", text=text, quota_bytes="2 GB")
    assert "Add 2 mailboxes" in page and "1 password is made here" in page and "an unusual one" in page
    assert Mailbox.objects.filter(address__tenant=acme.tenant).count() == 1
    page = acme.post("mailboxes/add/many/", text=text, quota_bytes="2 GB", sure="1")
    made = {each.address.local_part: each for each in Mailbox.objects.filter(address__tenant=acme.tenant)}
    assert (made["c"].name, made["c"].quota_bytes, made["d"].quota_bytes) == ("Carl", 1024**3, 2 * 1024**3)
    secret = re.findall(r'data-copy="([^"]+)"', page)
    assert len(secret) == 1 and passwords.verify_main(secret[0], made["d"].credentials.get().secret)
    assert AuditEntry.objects.filter(action="mailbox.created", actor=acme.admin).count() == 2
    file = acme.client.get(f"/t/{acme.tenant.pk}/mailboxes/export/")
    assert file["Content-Type"] == "text/csv" and file["Content-Disposition"].startswith("attachment")
    assert file.content.decode().splitlines() == [
        "address,name,quota", "ann@acme.test,,", "c@acme.test,Carl,1 GB", "d@acme.test,,2 GB",
    ]
    # A spreadsheet opens it, and whoever has the mailbox's name written by others.
    Mailbox.objects.filter(pk=made["d"].pk).update(name="=cmd|'/c calc'!A1")
    assert "d@acme.test,'=cmd|'/c calc'!A1,2 GB\r\n" in (
        acme.client.get(f"/t/{acme.tenant.pk}/mailboxes/export/").content.decode()
    )
    # Again, all of it is taken; and what is wrong is told a line, before and with `sure`.
    acme.plan(mailboxes=3)
    hashed = made["c"].credentials.get().secret.removeprefix("argon2")
    bad = (
        "address,password,hash\nc@acme.test,,\nx@beta.test,,\nx@nowhere.test,,\nx@isp.test,,\nann,,\n"
        f"z@acme.test,123,\ny@acme.test,,\"{hashed}\"\n"
    )
    for more in ({}, {"sure": "1"}):
        page = acme.post("mailboxes/add/many/", text=bad, **more)
        said = dict(re.findall(r'<td class="num">(\d+)</td><td>(.*?)</td>', page))
        assert "taken already" in said["2"] and "short" in said["7"] and "hash" in said["8"]
        assert {said[line].partition(" ")[2] for line in "345"} == {"is none of your domains: add it first."}
        assert len(said) == 7 and "z@acme.test,123" in page
    assert "allows 3 mailboxes" in acme.post("mailboxes/add/many/", text="address\ne@acme.test\n", sure="1")
    for text, said in (("", "Choose a file"), ("nonsense", "names the columns"), ("address\n\"x", "not understood")):
        assert said in acme.post("mailboxes/add/many/", text=text)
    assert Mailbox.objects.count() == 4
