"""Domains looked up in a real DNS: verdicts, proof and its loss, claims, the background's rounds, the command line."""

import dataclasses
import json
import threading
from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone

from panel.domains import checks, claims, lookup, services
from panel.domains.models import Domain, DomainAlias, DomainCheck
from panel.environment import Listen
from panel.operations import closing, needs
from panel.operations.services import restore
from panel.rules.domain_life import GRACE
from panel.tenants.changes import ServiceError, Taken, alone
from panel.tenants.models import AuditEntry, User
from tests.support import world
from tests.support.dns import dns_server
from tests.support.installation import until

HOST = "mx1.host.test"


@pytest.fixture(scope="module")
def server():
    with dns_server(host_test="mx1 A 203.0.113.7\nmx1 AAAA 2001:db8::7\n") as running:
        yield running


@pytest.fixture(autouse=True)
def dns(server, settings):
    settings.ENVIRONMENT = dataclasses.replace(
        settings.ENVIRONMENT, dns=server.listen, hostname=HOST, mx_names=(HOST,), spf=(f"a:{HOST}",),
        postmaster="postmaster@host.test",
    )
    for origin in [name for name in server.zones if str(name) != "host.test."]:
        del server.zones[origin]
    server.recover()
    return server


def look(domain: Domain) -> checks.Shown:
    """Now, however often."""
    DomainCheck.objects.filter(domain=domain).update(asked_at=None)
    shown = checks.check(domain, actor=None)
    domain.refresh_from_db()
    return shown


def verdicts(shown: checks.Shown) -> dict[str, str]:
    return {row.record.key: row.verdict.value for row in shown.required}


def right(domain: Domain, *, proof: bool = True, mx: bool = True) -> str:
    token = checks.token(domain.name, domain.tenant)
    return "\n".join([
        f'_posthouse TXT "posthouse-proof={token}"' if proof else "", f"@ MX 10 {HOST}." if mx else "",
        f'@ TXT "v=spf1 a:{HOST} ~all"', '_dmarc TXT "v=DMARC1; p=none"', "",
    ])


def test_pending_domain_is_proved_by_its_record_and_works(tenant, dns, traces):
    domain = services.create_domain(name="demo.test", tenant=tenant, actor=None)
    before = checks.shown(domain)
    assert (before.life, str(before.overall.words), before.checked_at) == ("pending", "Waiting for proof", None)
    seen = traces()
    dns.zone("demo.test", '@ TXT "v=spf1 include:_spf.letters.test -all"\n@ TXT "another=thing"\n')
    dns.zone("letters.test", '_spf TXT "v=spf1 include:_spf2.letters.test ~all"\n_spf2 TXT "v=spf1 mx ~all"\n')
    shown = look(domain)
    assert seen.nothing, "what was never known did not change"
    assert verdicts(shown) == {"proof": "nothing", "mx": "nothing", "spf": "different", "dmarc": "nothing"}
    assert [row.record.label for row in shown.chips] == ["MX", "SPF", "DMARC"]
    assert shown.counts == {"right": 0, "to change": 1, "to add": 3, "unknown": 0}
    spf = next(row for row in shown.rows if row.record.key == "spf")
    assert spf.record.values == (f"v=spf1 a:{HOST} include:_spf.letters.test -all",)
    assert domain.latest_check.found["nested"] == 2
    assert shown.nameservers == ("ns.demo.test",)

    dns.zone("demo.test", right(domain))
    shown = look(domain)
    assert (domain.proof, domain.proved_by) == ("proved", "by TXT record")
    assert (shown.life, str(shown.overall.words)) == ("active", "Sends and receives")
    assert (seen.actions, seen.domains) == (["domain.proved"], {"demo.test"})
    assert (seen.entry.tenant, seen.entry.actor_name) == (tenant, "DNS check")
    changed_at = shown.changed_at
    seen = traces()
    assert look(domain).changed_at == changed_at
    assert seen.nothing

    dns.zone("demo.test", right(domain).replace(f"a:{HOST} ", ""))
    shown = look(domain)
    assert str(shown.overall.words) == "Receives; others may refuse what it sends"
    assert (seen.entry.action, seen.entry.before, seen.entry.after) == (
        "domain.records_changed", {"spf": "same"}, {"spf": "different"}
    )
    assert not seen.domains, "the wire doesn't depend on it"


def test_proof_lapses_after_its_grace_and_comes_back(tenant, dns, traces):
    domain = world.domain("demo.test", tenant, proved_by=services.BY_RECORD)
    world.domain_alias("alias.test", domain)
    dns.zone("demo.test", right(domain, proof=False))
    assert look(domain).life == "active", "the MX leads here still"
    dns.zone("demo.test", right(domain, proof=False, mx=False))
    seen = traces()
    shown = look(domain)
    assert shown.life == "warning" and shown.sending_ends_at > timezone.now() + GRACE - timedelta(minutes=1)
    assert "domain.proof_missing" in seen.actions and not seen.domains
    staff = User(kind=User.Kind.PANEL, provider_role="support")
    assert [(need.word, need.name) for need in needs.of_domains(staff)] == [("warning", "demo.test")]

    def long_ago():
        DomainCheck.objects.update(missing_since=timezone.now() - GRACE)

    long_ago()
    dns.fail("demo.test")
    dns.fail("_posthouse.demo.test")
    assert look(domain).life == "warning", "what the DNS doesn't say is not missing"
    dns.recover()
    seen = traces()
    shown = look(domain)
    assert (shown.life, domain.proof) == ("suspended", "lapsed")
    assert (seen.actions, seen.domains) == (["domain.lapsed"], {"demo.test", "alias.test"})
    dns.zone("demo.test", right(domain))
    assert look(domain).life == "active" and domain.proof == "proved"

    dns.zone("demo.test", right(domain, proof=False, mx=False))
    look(domain)
    long_ago()
    services.delete_domain_alias(domain.aliases.get(), actor=None)
    Domain.objects.filter(pk=domain.pk).update(proof="lapsed")
    services.verify_domain(domain, actor=None)
    assert look(domain).life == "active", "what we checked stays proved"


def test_no_answer_whatever_it_is_breaks_a_look(tenant, dns, settings, monkeypatch):
    domain = world.domain("demo.test", tenant, proved_by=services.CHECKED_BY_US)
    huge = " ".join(f'"{"x" * 250}"' for _ in range(40))
    dns.zone("demo.test", "\n".join([
        f'@ TXT "v=spf1 " {huge}', *(f'@ TXT "v=spf1 ip4:192.0.2.{n} ~all"' for n in range(30)), "@ MX 0 .",
        '_dmarc TXT "v=DMARC1; p=\\000\\255\\027[31m\\"<script>"', "autoconfig CNAME autodiscover",
        "autodiscover CNAME autoconfig", "_imaps._tcp SRV 0 0 0 \\000\\200x.test.", "",
    ]))
    shown = look(domain)
    assert verdicts(shown)["spf"] == "conflicts" and verdicts(shown)["mx"] == "different"
    for row in shown.rows:
        assert len(row.found) <= 10 and all(len(value) <= 2000 and value.isprintable() for value in row.found)
    # We stand in what it takes in.
    dns.zone("demo.test", f'@ TXT "v=spf1 include:a.demo.test ~all"\na TXT "v=spf1 a:{HOST} -all"\n')
    assert verdicts(look(domain))["spf"] == "same"
    dns.fail("a.demo.test")
    assert verdicts(look(domain))["spf"] == "unreachable" == verdicts(checks.shown(Domain.objects.get()))["spf"]
    dns.recover()
    # A record that takes in itself, and one that takes in many.
    dns.zone("demo.test", '@ TXT "v=spf1 include:demo.test include:a.demo.test"\na TXT "v=spf1 include:a.demo.test"\n')
    assert verdicts(look(domain))["spf"] == "different"
    dns.fail("demo.test")
    dns.fail("_dmarc.demo.test")
    shown = look(domain)
    assert verdicts(shown) == {"mx": "unreachable", "spf": "unreachable", "dmarc": "unreachable"}
    assert str(shown.overall.words) == "Its DNS doesn't answer"
    assert "its name servers fail" in str(shown.rows[0].sentence)
    # Nobody listens there.
    monkeypatch.setattr(lookup, "QUESTION_S", 0.3)
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, dns=Listen("127.0.0.1", 1))
    assert set(verdicts(look(domain)).values()) == {"unreachable"}


def test_a_domain_is_looked_up_once_in_ten_seconds(domain, dns):
    dns.zone("demo.test", "")
    checks.check(domain, actor=None)
    asked = dns.asked.total()
    with pytest.raises(checks.TooSoon, match="within the last 10 seconds"):
        checks.check(domain, actor=None)
    assert dns.asked.total() == asked


def test_whoever_waits_for_silent_name_servers_holds_few_of_the_panels_threads(domain, dns):
    dns.zone("demo.test", "")
    asked = dns.asked.total()
    with ExitStack() as others:
        for _ in range(lookup.LOOKS_AT_ONCE):
            others.enter_context(lookup._turns)
        with pytest.raises(lookup.Busy, match="Try again in ten seconds"):
            look(domain)
        assert dns.asked.total() == asked
    assert look(domain).checked_at


def test_what_lies_over_a_neighbour_of_somebody_elses_is_not_proved(tenant, other_tenant, dns, traces):
    domain = services.create_domain(name="demo.test", tenant=tenant, actor=None)
    world.domain("mail.demo.test", other_tenant)
    dns.zone("demo.test", right(domain))
    seen = traces()
    shown = look(domain)
    assert (domain.proof, str(shown.overall.words)) == ("pending", "Can't be proved")
    assert seen.nothing


def test_a_domain_alias_is_proved_with_a_look_at_its_domain(tenant, other_tenant, dns, traces):
    domain = world.domain("demo.test", tenant, proved_by=services.BY_RECORD)
    for name in ("alias.test", "other-alias.test", "mail.theirs.test"):
        alias = services.create_domain_alias(name=name, domain=domain, actor=None)
        proof = checks.expected_of_alias(alias)[0]
        text = "posthouse-proof=of another" if name == "other-alias.test" else proof.values[0]
        dns.zone(name, f'_posthouse TXT "{text}"\n')
    world.domain("theirs.test", other_tenant)
    dns.zone("demo.test", right(domain))
    seen = traces()
    look(domain)
    assert (seen.actions, seen.domains) == (["domainalias.proved"], {"alias.test", "demo.test"})
    assert list(domain.aliases.filter(proof="proved").values_list("name", "proved_by")) == [
        ("alias.test", "by TXT record")
    ]


def test_what_was_asked_before_does_not_undo_what_was_found_since(tenant, dns, traces, monkeypatch):
    domain = services.create_domain(name="demo.test", tenant=tenant, actor=None)
    dns.zone("demo.test", "")
    look_up = lookup.look_up

    def slowly(*asked):
        found = look_up(*asked)
        monkeypatch.setattr(lookup, "look_up", look_up)
        dns.zone("demo.test", right(domain, mx=False))
        assert look(domain).life == "active", "somebody asks meanwhile"
        return found

    monkeypatch.setattr(lookup, "look_up", slowly)
    seen = traces()
    assert checks.recheck_due(timezone.now()).changes == []
    assert checks.shown(Domain.objects.get()).life == "active" and seen.actions == ["domain.proved"]


def test_aliases_that_are_never_proved_keep_no_other_waiting(tenant, dns, monkeypatch):
    monkeypatch.setattr(checks, "MOST_ALIASES", 1)
    domain = world.domain("demo.test", tenant, proved_by=services.BY_RECORD)
    dns.zone("demo.test", right(domain))
    services.create_domain_alias(name="never.test", domain=domain, actor=None)
    alias = services.create_domain_alias(name="alias.test", domain=domain, actor=None)
    dns.zone("alias.test", f'_posthouse TXT "{checks.expected_of_alias(alias)[0].values[0]}"\n')
    assert any(look(domain) and domain.aliases.filter(proof="proved").exists() for _ in range(50))


def test_proof_of_an_alias_lapses_by_the_same_rule(tenant, dns, traces, monkeypatch):
    monkeypatch.setattr(checks, "MOST_PROVED", 1)
    domain = world.domain("demo.test", tenant, proved_by=services.BY_RECORD)
    dns.zone("demo.test", right(domain))
    world.domain_alias("checked.test", domain)
    alias = world.domain_alias("alias.test", domain, proved_by=services.BY_RECORD)
    there = f'_posthouse TXT "posthouse-proof={checks.token("alias.test", tenant)}"\n'

    def look_at_it():
        look(domain)
        alias.refresh_from_db()
        return checks.life_of_alias(alias).word

    dns.zone("alias.test", f"@ MX 10 {HOST}.\n")
    assert look_at_it() == "active", "its MX leads here still"
    dns.zone("elsewhere.test", "mx A 192.0.2.77\n")
    dns.zone("alias.test", "@ MX 10 mx.elsewhere.test.\n")
    seen = traces()
    assert look_at_it() == "warning" and checks.life_of_alias(alias).ends_at > timezone.now()
    assert seen.actions == ["domainalias.proof_missing"] and not seen.domains, "it still sends"
    dns.fail("_posthouse.alias.test")
    DomainAlias.objects.filter(pk=alias.pk).update(missing_since=timezone.now() - GRACE)
    assert look_at_it() == "warning", "what the DNS doesn't say is not missing"
    dns.recover()
    world.domain_alias("other.test", domain, proved_by=services.BY_RECORD)  # must wait: alias.test is in doubt
    seen = traces()
    assert look_at_it() == "suspended" and alias.missing_since is None
    assert (seen.actions, seen.domains) == (["domainalias.lapsed"], {"alias.test", "demo.test"})
    domain.aliases.filter(name="other.test").delete()
    dns.zone("alias.test", there)
    assert look_at_it() == "active", "the record brings it back"
    dns.zone("alias.test", "")
    assert look_at_it() == "warning"
    DomainAlias.objects.filter(pk=alias.pk).update(proof="lapsed")
    services.verify_domain_alias(alias, actor=None)
    assert look_at_it() == "active", "what we checked stays proved"
    assert set(domain.aliases.values_list("proof", flat=True)) == {"proved"}


def test_another_tenants_record_proves_nothing(tenant, other_tenant, dns):
    domain = services.create_domain(name="demo.test", tenant=tenant, actor=None)
    assert checks.token("demo.test", tenant) != checks.token("demo.test", other_tenant)
    assert checks.token("demo.test", tenant) != checks.token("demo.tes", tenant)
    token = checks.token("demo.test", other_tenant)
    with override_settings(SECRET_KEY="another one, after an accident"):
        assert checks.token("demo.test", other_tenant) == token, "else every domain would lapse"
    dns.zone("demo.test", f'_posthouse TXT "posthouse-proof={token}"\n')
    assert verdicts(look(domain))["proof"] == "different" and domain.proof == "pending"


def test_who_proves_a_name_has_it_though_others_typed_it(tenant, other_tenant, dns, traces, tmp_path):
    def claim(name="demo.test"):
        return claims.claim_domain(name=name, tenant=tenant, actor=None)

    squatted = services.create_domain(name="demo.test", tenant=other_tenant, actor=None)
    services.create_domain_alias(name="alias.test", domain=squatted, actor=None)
    dns.zone("demo.test", "")
    with pytest.raises(claims.NeedsProof) as refused:
        claim()
    assert (refused.value.record.name, refused.value.field) == ("_posthouse.demo.test", "name")
    dns.zone("demo.test", f'_posthouse TXT "{refused.value.record.values[0]}"\n')
    seen = traces()
    made = claim()
    assert (made.tenant, made.proof, made.proved_by) == (tenant, "proved", "by TXT record")
    assert seen.actions == ["domain.deleted", "domain.created"]
    gone = AuditEntry.objects.get(action="domain.deleted")
    assert (gone.tenant, gone.reason) == (other_tenant, claims.OTHERS_CLAIM)
    assert {"demo.test", "alias.test"} == seen.domains

    # One with mailboxes in it is closed for good, by the removals that know their files; then it is free.
    begun = services.create_domain(name="begun.test", tenant=other_tenant, actor=None)
    world.mailbox("a@begun.test")
    dns.zone("begun.test", f'_posthouse TXT "posthouse-proof={checks.token("begun.test", tenant)}"\n')
    seen = traces()
    for _again in range(2):
        with pytest.raises(ServiceError, match="in three minutes"):
            claim("begun.test")
    assert (seen.actions, seen.domains) == (["domain.closed"], {"begun.test"})
    begun.refresh_from_db()
    with pytest.raises(ServiceError, match="can't be restored any more"):
        restore(begun, actor=None)
    step = closing.end_grace(timezone.now() + 2 * closing.MARGIN, tmp_path)
    assert (step.removed, step.failed) == (["the domain begun.test"], [])
    assert claim("begun.test").tenant == tenant
    with pytest.raises(Taken, match="it is a domain"):
        claim()  # one's own: said so

    # A name like it is nobody's; one that others proved stays theirs, in the same words until the record is there.
    assert claim("notdemo.test").proof == "pending"
    for name in ("proved.test", "sub.proved.test"):
        if name == "proved.test":
            world.domain(name, other_tenant)
        with pytest.raises(claims.NeedsProof, match="before it is proved: somebody here has it, or began to add it"):
            claim(name)
        dns.zone("test", f'_posthouse.{name}. TXT "posthouse-proof={checks.token(name, tenant)}"\n')
        with pytest.raises(Taken) as refused:
            claim(name)
        assert not isinstance(refused.value, claims.NeedsProof)
    assert Domain.objects.get(name="proved.test").tenant == other_tenant


def test_a_name_of_ones_own_for_our_host_keeps_the_proof_while_the_dns_is_silent_about_it(tenant, dns):
    domain = world.domain("demo.test", tenant, proved_by=services.BY_RECORD)
    theirs = "mail A 203.0.113.7\nmail AAAA 2001:db8::7\n"
    many = "".join(f"@ MX {n} m{n}.demo.test.\n" for n in range(100, 109)) + "@ MX 20 mail.demo.test.\n"
    dns.zone("demo.test", many + theirs)
    assert look(domain).life == "active", "the one that is tried first is ours"
    dns.fail("mail.demo.test")
    assert look(domain).life == "active", "nobody knows where it leads"
    dns.recover()
    dns.fail(HOST)
    assert look(domain).life == "active", "nor where we are"
    dns.recover()
    dns.zone("demo.test", many)
    assert look(domain).life == "warning", "it leads nowhere"


@pytest.mark.skipif(
    connection.vendor != "postgresql",
    reason="about the order of PostgreSQL's locks, by its own list of them; SQLite has one lock, so no order",
)
@pytest.mark.django_db(transaction=True)
def test_a_claim_and_a_look_at_once_do_not_wait_for_each_other(standard_plan, in_threads):
    tenant, other = world.tenant("Demo"), world.tenant("Other")
    squatted = world.domain("demo.test", other, proof="pending")
    looking = threading.Event()

    def waits() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
                "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
            )
            return bool(cursor.fetchone()[0])

    def claim() -> str:
        assert looking.wait(10)
        with transaction.atomic():
            claims._give_up_pending("demo.test")
            domain = services.create_domain(name="demo.test", tenant=tenant, verified=True, actor=None)
        return str(domain.tenant)

    def settle() -> str:
        with transaction.atomic():
            alone("domain names")
            looking.set()
            until(waits, within_s=10, what="the claim's wait for the lock")
            return Domain.objects.select_for_update(nowait=True).get(pk=squatted.pk).proof

    assert in_threads(lambda each: each(), claim, settle) == ["Demo", "pending"]


@pytest.mark.django_db(transaction=True)
def test_parallel_claims_reach_the_number_of_other_names_and_never_pass_it(standard_plan, in_threads, monkeypatch):
    monkeypatch.setattr(claims, "MOST_ALIASES", 3)
    domain = world.domain("demo.test", world.tenant("Demo"))

    def add(number: int) -> str:
        return str(claims.claim_domain_alias(name=f"n{number}.test", domain=domain, actor=None))

    made = in_threads(add, *range(8))
    assert sum(isinstance(each, str) for each in made) == domain.aliases.count() == 3
    assert all("no more fit" in str(each) for each in made if not isinstance(each, str)), made


@pytest.mark.django_db(transaction=True)
def test_a_round_looks_once_at_what_is_due(standard_plan, dns, in_threads):
    tenant = world.tenant("Demo")
    pending = [world.domain(f"p{n}.test", tenant, proof="pending") for n in range(3)]
    active = world.domain("active.test", tenant, proved_by=services.BY_RECORD)
    world.domain("closed.test", tenant, proof="pending", status=3)
    for domain in (*pending, active):
        dns.zone(domain.name, right(domain))
    before = dns.asked["p0.test", "MX"]
    now = timezone.now()
    rounds = in_threads(checks.recheck_due, now, now)
    assert sum(each.looked for each in rounds) == 3, rounds
    assert sorted(change for each in rounds for change in each.changes) == [(f"p{n}.test", "active") for n in range(3)]
    assert dns.asked["p0.test", "MX"] == before + 1
    assert set(Domain.objects.filter(proof="proved").values_list("name", flat=True)) == {
        "p0.test", "p1.test", "p2.test", "active.test",
    }
    later = DomainCheck.objects.get(domain=active)
    assert later.checked_at is None and now <= later.due_at <= now + timedelta(days=1), "spread over the day"
    assert checks.recheck_due(timezone.now()).looked == 0
    tomorrow = timezone.now() + timedelta(days=2)
    assert checks.recheck_due(tomorrow, most=3).is_full
    rest = checks.recheck_due(tomorrow)
    assert (rest.looked, rest.is_full) == (1, False)


# --- the command line ---------------------------------------------------------------------


def test_records_and_check_on_the_command_line(tenant, dns, capsys):
    domain = services.create_domain(name="bücher.test", tenant=tenant, actor=None)
    call_command("domain", "records", "bücher.test")
    said = capsys.readouterr().out
    assert "Waiting for proof" in said and "`manage.py domain check xn--bcher-kva.test` does it now" in said
    token = checks.token(domain.name, tenant)
    assert f"should be  posthouse-proof={token}" in said
    call_command("domain", "records", "bücher.test", "--zone")
    assert f'_posthouse.xn--bcher-kva.test. 3600 IN TXT "posthouse-proof={token}"' in capsys.readouterr().out
    dns.zone(domain.name, right(domain, mx=False) + "@ MX 5 old.test.\n")
    call_command("domain", "check", "bücher.test")
    said = capsys.readouterr().out
    assert "Doesn't receive. Its mail goes elsewhere: look at MX." in said and "found      5 old.test" in said
    with pytest.raises(CommandError, match="within the last 10 seconds"):
        call_command("domain", "check", "bücher.test")
    call_command("domain", "records", "bücher.test", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["life"], told["proof"], told["state"]) == ("active", "proved", "Doesn't receive")
    mx = next(each for each in told["records"] if each["key"] == "mx")
    assert (mx["verdict"], mx["found"], mx["values"]) == ("different", ["5 old.test"], [f"10 {HOST}"])
