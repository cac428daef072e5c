"""A tenant's domains: adding and proving them among others' names, looking them up, their other names, their end."""

import dataclasses
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from panel.domains import checks, listed
from panel.domains import services as domains
from panel.domains.models import Domain, DomainAlias, DomainCheck
from panel.operations import services as operations
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, Plan, User
from tests.support import world
from tests.support.dns import dns_server

pytestmark = pytest.mark.django_db

HOST = "mx1.host.test"


@pytest.fixture(scope="module")
def server():
    with dns_server(host_test="mx1 A 203.0.113.7\n") as running:
        yield running


@pytest.fixture
def dns(server, settings):
    settings.ENVIRONMENT = dataclasses.replace(
        settings.ENVIRONMENT, dns=server.listen, hostname=HOST, mx_names=(HOST,), spf=(f"a:{HOST}",),
    )
    for origin in [name for name in server.zones if str(name) != "host.test."]:
        del server.zones[origin]
    return server


@pytest.fixture
def acme():
    return world.tenant("Acme")


@pytest.fixture
def beta():
    return world.tenant("Beta")


def browser(tenant, name: str, role: str = "owner") -> Client:
    account = User.objects.create(kind=User.Kind.PANEL, email=f"{name}@letters.test", password="!")
    tenants.create_membership(user=account, tenant=tenant, role=role, actor=None)
    client = Client()
    client.force_login(account)
    return client


@pytest.fixture
def client(acme) -> Client:
    return browser(acme, "ann")


def add(client: Client, tenant, name: str):
    return client.post(f"/t/{tenant.pk}/domains/add/", {"name": name})


def right(domain: Domain) -> str:
    return "\n".join([
        f'_posthouse TXT "posthouse-proof={checks.token(domain.name, domain.tenant)}"', f"@ MX 10 {HOST}.",
        f'@ TXT "v=spf1 a:{HOST} ~all"', '_dmarc TXT "v=DMARC1; p=none"', "",
    ])


def found(domain: Domain, **verdicts: str) -> None:
    """As if a look had found this; what isn't named is right."""
    DomainCheck.objects.create(
        domain=domain, checked_at=timezone.now(),
        verdicts={**dict.fromkeys(("mx", "spf", "dmarc"), "same"), **verdicts},
    )


def test_a_domain_is_typed_added_looked_up_and_works(client, acme, dns):
    start = f"/t/{acme.pk}/domains/"
    assert b"No domain yet" in client.get(start).content
    answer = add(client, acme, " BÜCHER.example. ")
    domain = Domain.objects.get()
    assert (domain.name, domain.tenant, domain.proof) == ("xn--bcher-kva.example", acme, "pending")
    assert answer["Location"] == f"{start}{domain.pk}/"
    page = client.get(answer["Location"]).content.decode()
    assert ">bücher.example</h1>" in page and "Waiting for proof" in page and 'hx-trigger="load, submit"' in page
    assert "Required: 4 not looked up yet" in page and "Remove this domain" in page
    assert f"posthouse-proof=<wbr>{checks.token(domain.name, acme)}" in page
    dns.zone("xn--bcher-kva.example", right(domain) + "autoconfig CNAME evil<b>.example.\n")
    page = client.post(f"{start}{domain.pk}/check/", follow=True).content.decode()
    assert "Looked up just now: Sends and receives." in page and "Required: 3 right" in page
    assert "<b>.example" not in page and "evil" in page
    assert "hx-trigger" not in page
    assert AuditEntry.objects.get(action="domain.proved").actor.email == "ann@letters.test"
    part = Client().post(f"{start}{domain.pk}/check/", headers={"HX-Request": "true"})
    assert part["HX-Redirect"] == "/sign-in/" and not part.content
    again = client.post(f"{start}{domain.pk}/check/", follow=True).content.decode()
    assert "was looked up within the last 10 seconds" in again
    zone = client.get(f"{start}{domain.pk}/zone/")
    assert f"{domain.name}. 3600 IN MX 10 {HOST}." in zone.content.decode()
    assert zone["Content-Type"] == "text/plain; charset=utf-8" and "attachment" in zone["Content-Disposition"]
    letter = client.get(f"{start}{domain.pk}/letter/").content.decode()
    assert f"Value: 10 {HOST}" in letter and "mailto:?subject=" in letter
    for typed in ("BÜCH", "bücher.example", "bcher"):
        shown = client.get(start, {"q": typed})
        assert len(shown.context["lines"]) == (1 if typed != "BÜCH" else 0), typed


def test_a_refused_name_stands_beside_its_field_and_stays_typed(client, acme):
    Plan.objects.update(domains=1)
    for typed, why in (("no name", "not a domain name"), ("", "Write a domain"), ("com", "only one part"), ("<b>", "")):
        page = add(client, acme, typed).content.decode()
        assert "<title>Error:" in page and why in page and "<b>.example" not in page, typed
        assert typed in ("", "<b>") or f'value="{typed}"' in page
    assert add(client, acme, "acme.example").status_code == 302
    assert "it is a domain" in add(client, acme, "ACME.example").content.decode()
    page = add(client, acme, "second.example").content.decode()
    assert "allows 1 domains" in page and 'value="second.example"' in page
    assert "Your plan has no room" in client.get(f"/t/{acme.pk}/domains/").content.decode()


def test_names_like_others_are_free_and_names_of_others_are_answered_alike(client, acme, beta, dns):
    """Nothing tells whether the other one proved it, merely typed it, or has it from the provider, nor whose it is."""
    world.domain("shop.example", beta)
    world.domain("typed.example", beta, proof="pending")
    world.domain("shared.example")
    world.domain_alias("alias.example", Domain.objects.get(name="shop.example"))
    foreign = set(Domain.objects.values_list("name", flat=True)) | {"alias.example"}
    said = set()
    for name in (*foreign, *(f"sub.{name}" for name in foreign)):
        page, token = add(client, acme, name).content.decode(), checks.token(name, acme)
        assert token in page and f'value="{name}"' in page, name
        same = page[page.index('<label class="form-label"') : page.index("</main>")]
        said.add(same.replace(token, "TOKEN").replace(name.replace(".", ".<wbr>"), "NAME").replace(name, "NAME"))
    assert len(said) == 1
    assert not Domain.objects.filter(tenant=acme).exists()
    # Over them, too: whoever has all of a zone proves it.
    world.domain("a.deep.example", beta)
    assert "Somebody here has this name" in add(client, acme, "deep.example").content.decode()
    for name in ("shop.exampl", "shop.example.com", "notshop.example", "hop.example", "shop-example.com"):
        assert add(client, acme, name).status_code == 302, name
    # What one searches is one's own.
    page = client.get(f"/t/{acme.pk}/domains/", {"q": "shop.example"})
    assert {line.domain.tenant_id for line in page.context["lines"]} == {acme.pk}
    assert {line.domain.name for line in page.context["lines"]} == {"shop.example.com", "notshop.example"}


def test_other_names_are_claimed_on_the_same_terms(client, acme, beta, dns):
    mine, theirs = world.domain("acme.example", acme), world.domain("shop.example", beta)
    typed = world.domain_alias("new.example", theirs, proof="pending")
    there = f"/t/{acme.pk}/domains/{mine.pk}/names/"
    for name in ("shop.example", "sub.shop.example", "new.example"):
        page = client.post(there, {"name": name}).content.decode()
        assert "Somebody here has this name" in page and checks.token(name, acme) in page, name
        assert "belongs to somebody else" not in page and "Beta" not in page
    dns.zone("new.example", f'_posthouse TXT "posthouse-proof={checks.token("new.example", acme)}"\n')
    assert client.post(there, {"name": "new.example"}).status_code == 302
    alias = DomainAlias.objects.get(name="new.example")
    assert (alias.domain, alias.proof, alias.proved_by) == (mine, "proved", "by TXT record")
    assert AuditEntry.objects.get(action="domainalias.deleted").subject_id == typed.pk
    assert client.post(there, {"name": "old.example"}).status_code == 302
    assert f"posthouse-proof=<wbr>{checks.token('old.example', acme)}" in client.get(there).content.decode()
    assert "it is a domain alias" in client.post(there, {"name": "old.example"}).content.decode()
    # A name of another domain of one's own isn't this one's; a removed one is gone.
    second = world.domain("second.example", acme)
    remove = f"/t/{acme.pk}/domains/{{}}/names/{alias.pk}/remove/"
    assert client.post(remove.format(second.pk)).status_code == 404
    assert client.post(remove.format(mine.pk)).status_code == 302
    assert not DomainAlias.objects.filter(pk=alias.pk).exists()


def test_a_shared_domain_is_the_providers_though_one_has_addresses_in_it(client, acme):
    shared = world.domain("shared.example")
    world.mailbox("ann@shared.example", acme)
    start = f"/t/{acme.pk}/domains/"
    for path in ("", "check/", "zone/", "letter/", "names/", "close/", "restore/"):
        assert client.get(f"{start}{shared.pk}/{path}").status_code == 404, path
        assert client.post(f"{start}{shared.pk}/{path}").status_code in (404, 405), path
    page = client.get(f"/t/{acme.pk}/").content.decode()
    assert "Addresses in your provider" in page and "steps left" not in page


def test_closing_is_undone_and_what_the_provider_did_is_not(client, acme, beta):
    domain = world.domain("acme.example", acme)
    world.mailbox("ann@acme.example")
    there = f"/t/{acme.pk}/domains/{domain.pk}/"
    assert b"(1 mailbox, 0 aliases)" in client.get(f"{there}close/").content
    assert client.post(f"{there}close/")["Location"] == there
    page = client.get(there).content.decode()
    assert "Restore it" in page and "Check now" not in page and "Close this domain" not in page
    assert AuditEntry.objects.get(action="domain.closed").actor.email == "ann@letters.test"
    client.post(f"{there}restore/")
    domain.refresh_from_db()
    assert domain.status == 0
    staff = User.objects.create(kind=User.Kind.PANEL, email="op@host.test", password="!", provider_role="operator")
    operations.suspend(domain, reason="spam", actor=staff)
    assert b"is suspended by your provider" in client.post(f"{there}close/").content
    page = client.get(there).content.decode()
    assert "spam" in page and "Close this domain" not in page
    operations.close(domain, actor=staff)
    page = client.get(there).content.decode()
    assert "It was closed from above" in page and "Restore it" not in page
    assert b"is closed by your provider" in client.post(f"{there}restore/", follow=True).content
    domain.refresh_from_db()
    assert domain.status == 3
    # What was only typed is removed at once; not while it is suspended, to be typed again.
    typed = world.domain("typed.example", acme, proof="pending")
    operations.suspend(typed, reason="phishing", actor=None)
    with pytest.raises(ServiceError, match="by your provider"):
        domains.remove_unproved(typed, actor=acme.memberships.get().user)
    operations.resume(typed, actor=None)
    assert client.post(f"/t/{acme.pk}/domains/{typed.pk}/close/")["Location"] == f"/t/{acme.pk}/domains/"
    assert not Domain.objects.filter(pk=typed.pk).exists()


def test_the_list_has_trouble_first_is_paged_and_asks_no_query_a_row(client, acme, beta):
    stands = {
        "z-lapsed": {"proof": "lapsed"}, "y-ending": {}, "x-stopped": {"status": 1}, "w-wrong": {},
        "v-pending": {"proof": "pending"}, "b-unknown": {}, "a-fine": {}, "0-closed": {"status": 3},
    }
    made = {name: world.domain(f"{name}.example", acme, **fields) for name, fields in stands.items()}
    found(made["y-ending"])
    DomainCheck.objects.update(missing_since=timezone.now() - timedelta(days=1))
    found(made["w-wrong"], spf="nothing")
    found(made["a-fine"])
    world.domain("foreign.example", beta, proof="lapsed")
    order = [
        "z-lapsed", "y-ending", "x-stopped", "w-wrong", "v-pending", "a-fine", "b-unknown", "0-closed",
    ]
    ranked = listed.by_rank(Domain.objects.filter(tenant=acme))
    assert [each.name.removesuffix(".example") for each in ranked] == order
    for at, each in enumerate(ranked):
        rest = listed.after(ranked, each.rank, each.name)
        assert [one.name.removesuffix(".example") for one in rest] == order[at + 1 :]
    start = f"/t/{acme.pk}/domains/"
    with CaptureQueriesContext(connection) as few:
        page = client.get(start).content.decode()
    assert "<strong>4 need you</strong>, one waits for its proof, 2 have nothing wrong, one is closed." in page
    assert "foreign" not in page
    for number in range(40):
        world.mailbox(f"m@{world.domain(f'm{number:02}.example', acme)}")
    with CaptureQueriesContext(connection) as many:
        page = client.get(start)
    assert len(many) == len(few) and len(page.context["lines"]) == 30
    second = client.get(start, {"after": page.context["next"]})
    names = [line.domain.name for each in (page, second) for line in each.context["lines"]]
    assert len(names) == len(set(names)) == 48
    for name in ("other.test", "another.test"):
        world.domain_alias(name, made["a-fine"])
    for searched in ("a-fine", "another.test", "OTHER.test"):
        assert [line.name for line in client.get(start, {"q": searched}).context["lines"]] == ["a-fine.example"]
    for nonsense in ("9.a", "x", ".", "3.\x00", "5." + "z" * 400):
        assert client.get(start, {"after": nonsense}).status_code == 200


@pytest.mark.once("postgresql")
def test_home_says_which_domain_is_in_trouble_and_the_first_steps_show_its_records(client, acme, dns):
    start = f"/t/{acme.pk}/"
    domain = world.domain("acme.example", acme)
    answers = {"answers": [
        {"name": "acme.example", "type": "MX", "values": [f"10 {HOST}"], "error": ""},
        {"name": "acme.example", "type": "TXT", "values": [], "error": ""},
        {"name": "_dmarc.acme.example", "type": "TXT", "values": ["v=DMARC1; p=none"], "error": ""},
    ], "addresses": {}, "nested": 0, "included": [], "nameservers": ["ns1.provider.example"]}
    DomainCheck.objects.create(domain=domain, checked_at=timezone.now(), found=answers)
    page = client.get(start).content.decode()
    assert "2 steps left" in page and "ns1.provider.example" in page
    assert ">SPF</span>" in page and ">DMARC</span>" not in page and 'name="back" value="home"' in page
    world.mailbox("ann@acme.example")
    DomainCheck.objects.update(verdicts={"spf": "nothing"}, missing_since=timezone.now())
    Domain.objects.update(proved_by="by TXT record")
    page = client.get(start).content.decode()
    assert "acme.example stops sending in 6 days." in page and "Sent in 24 hours</span>" in page
    page = client.get(f"{start}domains/{domain.pk}/").content.decode()
    assert "Put the proof back before" in page
    assert page.index(">Proof</span>") < page.index("Optional: mail works without")
    DomainCheck.objects.update(missing_since=None)
    assert "Your first message</h2>" in client.get(start).content.decode(), "until one came, as nothing is in the way"
    world.mailbox("bob@acme.example")
    page = client.get(start).content.decode()
    assert "acme.example: Receives; others may refuse what it sends." in page and "Look at SPF." in page
    operations.suspend(acme, reason="unpaid", actor=None)
    for path in ("", "domains/", f"domains/{domain.pk}/"):
        page = client.get(start + path).content.decode()
        assert "Sends and receives" not in page and "Suspended" in page, path
    Domain.objects.update(proof="lapsed")
    assert "its proof lapsed" in client.get(start).content.decode()
