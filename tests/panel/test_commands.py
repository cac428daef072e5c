"""The command line: what it does, says and refuses; the demo."""

import argparse
import io
import json
import os
import shutil
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import CommandError
from django.utils import timezone

from panel.domains.models import Domain
from panel.mailboxes.models import Alias, Credential, Mailbox
from panel.mailboxes.passwords import verify_main
from panel.operations import demo
from panel.rules.status import Status
from panel.sending.models import Hold, OutboundRoute, Recipient, SendingLimit
from panel.tenants.models import AuditEntry, Membership, SecondFactor, Tenant, User
from tests.support import queue, world

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = world.PASSWORD
OURS = sorted(name for name, app in get_commands().items() if app == "panel.operations" and name != "prepare")


def run(*arguments, monkeypatch=None, stdin=""):
    """What the command writes. With `stdin`, `monkeypatch` is needed."""
    if monkeypatch:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def typed(monkeypatch):
    """Runs a command with a password on standard input."""
    return lambda *arguments, text=f"{PASSWORD}\n": run(*arguments, monkeypatch=monkeypatch, stdin=text)


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))


def test_the_commands_of_the_readme_make_a_tenant_that_works(db, typed):
    assert run("tenant", "create", "Acme") == "The tenant Acme is made, on the plan Standard.\n"
    run("domain", "create", "acme.test", "--tenant", "Acme", "--verified")
    typed("mailbox", "create", "ann@acme.test", "--password-stdin")
    run("alias", "create", "info@acme.test", "ann@acme.test", "bob@elsewhere.test")
    secret = run("credential", "create", "ann@acme.test", "--label", "web shop").split()[-1]
    run("limit", "set", "ann@acme.test", "hour=100", "day=unlimited")
    run("route", "set", "partner.test", "smtp://relay.partner.test:2525")
    assert Domain.objects.get().proof == "proved"
    mailbox = Mailbox.objects.get()
    assert verify_main(PASSWORD, mailbox.credentials.get(kind="main").secret)
    assert secret.startswith("ph-app-") and mailbox.credentials.get(kind="app").scopes == ["submission"]
    assert Alias.objects.get().targets.count() == 2
    assert sorted(SendingLimit.objects.values_list("window", "recipients")) == [("day", None), ("hour", 100)]
    assert OutboundRoute.objects.get().host == "relay.partner.test"
    assert set(AuditEntry.objects.values_list("actor_name", flat=True)) == {"command line"}


def test_password_is_made_and_shown_once_without_a_terminal(domain):
    shown = run("mailbox", "create", "ann@demo.test").strip().split()[-1]
    assert len(shown) == 20 and verify_main(shown, Credential.objects.get().secret)
    again = run("mailbox", "password", "ann@demo.test").strip().split()[-1]
    assert again != shown and verify_main(again, Credential.objects.get().secret)


def test_password_from_standard_input_is_not_shown(domain, typed):
    assert PASSWORD not in typed("mailbox", "create", "ann@demo.test", "--password-stdin")
    with pytest.raises(CommandError, match="no password on standard input"):
        typed("mailbox", "password", "ann@demo.test", "--password-stdin", text="\n")
    with pytest.raises(CommandError, match="too short"):
        typed("mailbox", "password", "ann@demo.test", "--password-stdin", text="short\n")


def test_password_that_is_not_utf_8_is_refused_in_a_sentence(domain, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"an unusual \xff word\n"), "utf-8"))
    with pytest.raises(CommandError, match="not UTF-8"):
        run("mailbox", "create", "ann@demo.test", "--password-stdin")
    assert not Mailbox.objects.exists()


def test_an_answer_that_is_not_utf_8_is_refused_in_a_sentence(mailbox, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Zur\xfcck im September.\n"), "utf-8"))
    with pytest.raises(CommandError, match="not UTF-8"):
        run("rule", "set", "shop@demo.test", "--vacation", "on", "--text-stdin")
    assert not AuditEntry.objects.exists()


def test_password_is_asked_for_twice_on_a_terminal(domain, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    answers = iter([PASSWORD, "other", PASSWORD, PASSWORD])
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    out = io.StringIO()
    with pytest.raises(CommandError, match="two passwords differ"):
        call_command("mailbox", "create", "ann@demo.test", stdout=out)
    call_command("mailbox", "create", "ann@demo.test", stdout=out)
    assert verify_main(PASSWORD, Credential.objects.get().secret) and "shown only now" not in out.getvalue()


def test_account_of_the_provider_or_a_tenant(tenant, typed):
    typed("account", "create", "ops@provider.example", "--provider", "operator", "--password-stdin")
    typed("account", "create", "ann@elsewhere.example", "--tenant", "Demo", "--role", "owner", "--password-stdin")
    assert User.objects.get(email="ops@provider.example").is_staff
    assert Membership.objects.get().role == "owner"
    listed = json.loads(run("account", "list", "--json"))
    assert [row["email"] for row in listed] == ["ann@elsewhere.example", "ops@provider.example"]
    assert listed[0]["member_of"] == ["Demo: owner"]
    for refused in (
        ("create", "x@elsewhere.example"), ("create", "x@elsewhere.example", "--tenant", "Demo"),
        ("create", "x@elsewhere.example", "--provider", "god"), ("create", "x@elsewhere.example", "--provider", ""),
        ("create", "x@elsewhere.example", "--tenant", "Demo", "--role", "god"),
        ("password", "nobody@elsewhere.example"),
    ):
        with pytest.raises(CommandError):
            typed("account", *refused)
    assert User.objects.count() == 2


def test_a_domains_store_is_set(domain):
    said = run("domain", "set", "demo.test", "--store", "maildir")
    assert said == "Mail for demo.test is stored in Maildirs by us.\n"
    domain.refresh_from_db()
    assert domain.store == "maildir"
    run("domain", "set", "demo.test", "--store", "installation")
    domain.refresh_from_db()
    assert domain.store == ""


@pytest.mark.parametrize("kind", ["mailbox", "domain", "tenant"])
def test_suspend_and_resume(mailbox, domain, tenant, kind):
    row = {"mailbox": mailbox, "domain": domain, "tenant": tenant}[kind]
    with pytest.raises(CommandError, match="--reason"):
        run(kind, "suspend", str(row))
    assert run(kind, "suspend", str(row), "--reason", "as agreed", "--sending-only").endswith("is no sending.\n")
    assert run(kind, "suspend", str(row), "--reason", "worse") == f"The {kind} {row} is suspended.\n"
    with pytest.raises(CommandError, match=f"The {kind} {row} is suspended already"):
        run(kind, "suspend", str(row), "--reason", "again")
    assert "suspended" in run(kind, "list") and "worse" in run(kind, "list")
    run(kind, "resume", str(row))
    row.refresh_from_db()
    assert row.status == Status.ACTIVE


def test_argument_that_is_not_utf_8_is_refused(db):
    with pytest.raises(CommandError, match="not UTF-8"):
        run("mailbox", "create", os.fsdecode(b"\xff@demo.test"))
    with pytest.raises(CommandError, match="not UTF-8"):
        run("tenant", "create", os.fsdecode(b"Acm\xff"))


def test_lists_are_aligned_and_empty_ones_teach(db):
    assert "manage.py tenant create" in run("tenant", "list")
    world.tenant("A")
    world.tenant("Much longer")
    head, first, second = run("tenant", "list").splitlines()
    assert head.index("PLAN") == first.index("Standard") == second.index("Standard")


def test_domains_aliases_credentials_and_routes_go_through_their_acts(mailbox, tenant):
    run("domain", "create", "bücher.example", "--tenant", "Demo")
    assert "bücher.example" in run("domain", "list")
    run("domain", "verify", "bücher.example")
    run("domain", "create", "isp.test", "--shared", "--verified")
    with pytest.raises(CommandError, match="name the tenant"):
        run("mailbox", "create", "bob@isp.test")
    run("mailbox", "create", "bob@isp.test", "--tenant", "Demo")
    assert "bob@isp.test" not in run("mailbox", "list", "--domain", "demo.test")
    run("alias", "create", "@demo.test", "shop@demo.test")
    assert "*@demo.test" in run("alias", "list", "--tenant", "Demo")
    run("alias", "remove", "@demo.test")
    run("credential", "create", "shop@demo.test", "--scope", "imap", "--scope", "pop3", "--expires", "30d",
        "--network", "192.0.2.0/24")
    credential = Credential.objects.get(kind="app")
    assert credential.scopes == ["imap", "pop3"] and credential.networks == ["192.0.2.0/24"]
    assert timedelta(days=29) < credential.expires_at - timezone.now() < timedelta(days=31)
    run("credential", "freeze", str(credential.pk), "--reason", "odd hours")
    assert "frozen: odd hours" in run("credential", "list", "shop@demo.test")
    run("credential", "unfreeze", str(credential.pk))
    run("credential", "revoke", str(credential.pk))
    for wrong in (("revoke", "99999999"), ("create", "shop@demo.test", "--expires", "soon")):
        with pytest.raises(CommandError):
            run("credential", *wrong)
    run("route", "set", "*", "smtp://[2001:db8::25]:587", "--tls", "required")
    assert "smtp://[2001:db8::25]:587" in run("route", "list")
    run("route", "remove", "*")
    with pytest.raises(CommandError, match="no route for"):
        run("route", "remove", "*")


@pytest.mark.parametrize("arguments", [
    ("credential", "create", "shop@demo.test", "--expires", "9999-12-31T23:59-12:00"),
    ("credential", "set", "7", "--expires", "9999-12-31T23:59-12:00"),
    ("audit", "list", "--since", "9999-12-31T23:59-12:00"),
    ("audit", "list", "--since", "0001-01-01T00:00+14:00"),
])
def test_a_moment_beyond_the_calendar_is_no_date(mailbox, arguments):
    Credential.objects.create(pk=7, mailbox=mailbox, kind="app", secret="0" * 64)
    with pytest.raises(CommandError, match="is no date"):
        run(*arguments)


@pytest.mark.parametrize("arguments", [
    ("credential", "create", "shop@demo.test", "--expires", ""),
    ("mailbox", "set", "shop@demo.test", "--quota", ""),
    ("plan", "set", "Standard", "--storage", " "),
])
def test_an_empty_value_lifts_no_bound(mailbox, arguments):
    """As a script writes it whose variable isn't set."""
    with pytest.raises(CommandError) as error:
        run(*arguments)
    assert error.value.returncode == 1 and not AuditEntry.objects.exists()


def test_limits_are_shown_with_where_they_come_from(mailbox):
    run("limit", "set", "shop@demo.test", "hour=10")
    shown = json.loads(run("limit", "show", "shop@demo.test", "--json"))
    assert [(row["recipients"], row["from"]) for row in shown] == [(10, "its own"), (1000, "the plan Standard")]
    run("limit", "set", "shop@demo.test", "hour=inherit", "day=inherit")
    assert not SendingLimit.objects.exists()
    run("limit", "set", "tenant:Demo", "day=unlimited")
    run("limit", "set", "domain:demo.test", "day=0")
    for nothing in (("shop@demo.test", "hour=inherit"), ("tenant:Demo", "day=unlimited", "hour=inherit")):
        with pytest.raises(CommandError, match="has these limits already") as already:
            run("limit", "set", *nothing)
        assert already.value.returncode == 4
    for wrong in ("hour=-1", "week=1", "hour", "hour=many"):
        with pytest.raises(CommandError):
            run("limit", "set", "shop@demo.test", "day=5", wrong)
    assert not SendingLimit.objects.filter(mailbox=mailbox).exists()


def test_queue_is_listed_shown_and_retried(tenant, other_tenant):
    later = timezone.now() + timedelta(hours=5)
    row = queue.waiting(tenant, "bob@slow.test", due_at=later, last_reply="451 4.7.1 Greylisted\x1b[31m")
    queue.attempt(row)
    held = queue.waiting(tenant, "carl@gone.test", due_at=later, holds=Hold.UNDELIVERABLE)
    queue.waiting(other_tenant, "dora@slow.test", due_at=later)
    listed = run("queue", "list")
    assert "slow.test" in listed and "it can neither be delivered nor returned" in listed and "\x1b" not in listed
    assert "carl@gone.test" not in run("queue", "list", "--domain", "slow.test")
    assert "dora" not in run("queue", "list", "--tenant", "Demo")
    shown = run("queue", "show", row.message.queue_id)
    assert "mx.elsewhere.test" in shown and "203.0.113.9" in shown
    assert "bob@slow.test" in run("queue", "show", row.message.queue_id, "--tenant", "Demo")
    with pytest.raises(CommandError, match="There is no message"):
        run("queue", "show", row.message.queue_id, "--tenant", "Other")
    assert run("queue", "retry", row.message.queue_id) == "1 recipient is due now.\n"
    assert run("queue", "retry", "--domain", "gone.test") == "0 recipients are due now. 1 is held.\n"
    assert run("queue", "retry", held.message.queue_id, "--release") == "1 recipient is due now.\n"
    assert run("queue", "retry", "--all") == "3 recipients are due now.\n"
    assert not Recipient.objects.filter(due_at__gt=timezone.now()).exists()
    for wrong in (("show", "0"), ("retry",), ("retry", "0000000000000"), ("show", "U" * 13)):
        with pytest.raises(CommandError):
            run("queue", *wrong)


def test_logins_are_listed_newest_first_by_mailbox_and_by_failure(mailbox):
    other = world.mailbox("office@demo.test")
    world.login_event(mailbox, ip="192.0.2.1")
    world.login_event(mailbox, ip=None, outcome="wrong", count=39, credential_text="")
    world.login_event(other, ip="192.0.2.3")
    world.login_event(other, mailbox=None, tenant=None, login="bad\x1bname", outcome="locked")
    lines = run("login", "list").splitlines()
    assert [line.split()[0] for line in lines[:1]] == ["FIRST"]
    assert len(lines) == 5
    assert "bad?name" in lines[1] and "locked after wrong ones" in lines[1]
    assert "192.0.2.1" in lines[4] and "main password" in lines[4]
    of_one = json.loads(run("login", "list", "--mailbox", "Shop@demo.test", "--failed", "--json"))
    assert [(row["login"], row["count"], row["from"]) for row in of_one] == [("shop@demo.test", 39, "many networks")]
    with pytest.raises(CommandError, match=r"no mailbox nobody@demo\.test"):
        run("login", "list", "--mailbox", "nobody@demo.test")


def test_no_logins_are_said(db):
    assert run("login", "list") == "Nobody has tried to log in.\n"


def acts_of(name):
    parser = load_command_class("panel.operations", name).create_parser("manage.py", name)
    (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return subparsers.choices


@pytest.mark.parametrize("name", OURS)
def test_each_act_has_an_example_and_speaks_json(name):
    for act, parser in acts_of(name).items():
        text = parser.format_help()
        assert f"examples:\n  manage.py {name} {act}" in text, act
        assert "--json" in text, act


@pytest.mark.parametrize("kind", ["mailbox", "domain", "tenant"])
def test_close_and_restore(mailbox, domain, tenant, kind):
    row = {"mailbox": mailbox, "domain": domain, "tenant": tenant}[kind]
    with pytest.raises(CommandError, match="--reason"):
        run(kind, "close", str(row))
    said = run(kind, "close", str(row), "--reason", "left us")
    row.refresh_from_db()
    assert said == f"The {kind} {row} is closed. It can be restored until {row.grace_ends_at:%Y-%m-%d %H:%M} UTC.\n"
    assert "left us" in run(kind, "list") and "can be restored until" in run(kind, "show", str(row))
    closed = json.loads(run(kind, "show", str(row), "--json"))
    assert (closed["status"], closed["reason"]) == ("closed", "left us") and closed["can_be_restored_until"]
    restored = json.loads(run(kind, "restore", str(row), "--json"))
    assert (restored["status"], restored["can_be_restored_until"]) == ("active", None)
    with pytest.raises(CommandError, match="not closed") as again:
        run(kind, "restore", str(row))
    assert again.value.returncode == 4


def test_what_an_act_tells_has_the_keys_that_the_list_has(mailbox, domain, tenant):
    run("alias", "create", "info@demo.test", "shop@demo.test")
    run("route", "set", "*", "smtp://relay.test")
    run("domainalias", "create", "alias.test", "demo.test", "--verified")
    run("plan", "create", "Small", "--domains", "1", "--storage", "5GB")
    for group, name in (
        ("tenant", "Demo"), ("domain", "demo.test"), ("mailbox", "shop@demo.test"), ("alias", "info@demo.test"),
        ("route", "*"), ("domainalias", "alias.test"), ("plan", "Small"),
    ):
        shown = json.loads(run(group, "show", name, "--json"))
        listed = json.loads(run(group, "list", "--json"))
        assert set(shown) <= set(listed[0]), group
        assert shown.items() <= next(row for row in listed if name in row.values()).items()


def test_set_changes_what_is_named_and_says_when_nothing_was(mailbox, domain, tenant):
    run("plan", "create", "Large", "--mailboxes", "5")
    run("alias", "create", "info@demo.test", "shop@demo.test")
    run("credential", "create", "shop@demo.test", "--label", "shop")
    number = str(Credential.objects.get(kind="app").pk)
    for arguments, key, value in (
        (("plan", "set", "Large", "--aliases", "3", "--mailboxes", "unlimited"), "mailboxes", None),
        (("tenant", "set", "Demo", "--plan", "Large", "--notes", "called"), "plan", "Large"),
        (("domain", "set", "demo.test", "--store", "maildir"), "store", "maildir"),
        (("mailbox", "set", "shop@demo.test", "--quota", "5GB", "--name", "Shop"), "quota_bytes", 5 * 1024**3),
        (("alias", "set", "info@demo.test", "--target", "x@elsewhere.test"), "targets", ["x@elsewhere.test"]),
        (("alias", "set", "info@demo.test", "--expires", "2099-12-31"), "expires", "2099-12-31T00:00:00Z"),
        (("credential", "set", number, "--scope", "imap", "--expires", "never"), "for", ["imap"]),
    ):
        assert json.loads(run(*arguments, "--json"))[key] == value, arguments
        with pytest.raises(CommandError, match="Nothing to change") as again:
            run(*arguments)
        assert again.value.returncode == 4
        with pytest.raises(CommandError, match="Say what to change") as bare:
            run(*arguments[:3])
        assert bare.value.returncode == 2
    for wrong in (("plan", "set", "Large", "--storage", "much"), ("plan", "set", "Large", "--domains", "-1"),
                  ("mailbox", "set", "shop@demo.test", "--quota", "many")):
        with pytest.raises(CommandError) as refused:
            run(*wrong)
        assert refused.value.returncode == 1


def test_a_password_made_here_is_in_the_object(domain):
    made = json.loads(run("mailbox", "create", "ann@demo.test", "--quota", "1GB", "--json"))
    assert made["quota_bytes"] == 1024**3 and verify_main(made["secret"], Credential.objects.get().secret)
    app = json.loads(run("credential", "create", "ann@demo.test", "--json"))
    listed = json.loads(run("credential", "list", "ann@demo.test", "--json"))[1]
    assert app.pop("secret").startswith("ph-app-") and app == listed


def test_an_accounts_object_tells_of_its_second_factor(db, typed):
    typed("account", "create", "ops@provider.test", "--provider", "operator", "--password-stdin")
    told = json.loads(run("account", "second-factor", "ops@provider.test", "--json"))
    assert (told["second_factor_since"], told["second_factor_required"]) == (None, False)
    told = json.loads(run("account", "second-factor", "ops@provider.test", "--require", "--json"))
    assert told["second_factor_required"] is True
    with pytest.raises(CommandError) as nothing:
        run("account", "second-factor", "ops@provider.test", "--reset")
    assert nothing.value.returncode == 4
    since = timezone.now()
    SecondFactor.objects.create(user=User.objects.get(), secret="sealed", created_at=since)
    (told,) = json.loads(run("account", "list", "--json"))
    assert told["second_factor_since"] == since.isoformat().replace("+00:00", "Z")


def test_members_come_and_go(tenant, typed):
    typed("account", "create", "ann@elsewhere.example", "--provider", "support", "--password-stdin")
    run("membership", "create", "ann@elsewhere.example", "Demo", "--role", "admin")
    run("membership", "set", "ann@elsewhere.example", "Demo", "--role", "viewer")
    assert json.loads(run("membership", "list", "--json")) == [
        {"email": "ann@elsewhere.example", "tenant": "Demo", "role": "viewer"},
    ]
    run("membership", "delete", "ann@elsewhere.example", "Demo")
    with pytest.raises(CommandError, match="no member") as gone:
        run("membership", "delete", "ann@elsewhere.example", "Demo")
    assert gone.value.returncode == 3 and not Membership.objects.exists()
    run("account", "set", "ann@elsewhere.example", "--provider", "", "--name", "Ann")
    run("account", "close", "ann@elsewhere.example", "--reason", "left")
    assert json.loads(run("account", "show", "ann@elsewhere.example", "--json"))["state"] == "closed"
    run("account", "restore", "ann@elsewhere.example")


def test_a_customers_name_that_reads_like_a_path_takes_no_other_ones_place(standard_plan, db):
    south, north = world.tenant("South"), world.tenant("North")
    world.tenant("South/Acme", parent=north)
    world.tenant("Acme", parent=south)
    assert json.loads(run("tenant", "show", "South/Acme", "--json"))["parent"] == "South"
    assert json.loads(run("tenant", "show", "North/South/Acme", "--json"))["parent"] == "North"
    assert json.loads(run("tenant", "show", "Acme", "--json"))["parent"] == "South"
    world.tenant("South/Acme")
    assert json.loads(run("tenant", "show", "South/Acme", "--json"))["parent"] is None


def test_the_audit_log_is_listed_and_shown(mailbox):
    run("mailbox", "suspend", "shop@demo.test", "--reason", "leaked")
    run("mailbox", "resume", "shop@demo.test")
    newest, oldest = json.loads(run("audit", "list", "--of", "shop@demo.test", "--action", "mailbox", "--json"))
    assert (newest["what"], oldest["what"], oldest["reason"]) == ("mailbox.resumed", "mailbox.suspended", "leaked")
    assert json.loads(run("audit", "list", "--tenant", "Demo", "--most", "1", "--since", "1d", "--json")) == [newest]
    assert json.loads(run("audit", "show", str(oldest["id"]), "--json")) == oldest
    with pytest.raises(CommandError, match="no entry"):
        run("audit", "show", "0")


def test_a_waiting_recipient_is_given_up_with_a_reason(tenant):
    row = queue.waiting(tenant, "bob@slow.test")
    seen = json.loads(run("queue", "show", row.message.queue_id, "--json"))
    assert [one["recipient"] for one in seen["recipients"]] == ["bob@slow.test"]
    with pytest.raises(CommandError, match="--reason"):
        run("queue", "discard", row.message.queue_id)
    run("queue", "discard", row.message.queue_id, "--recipient", "bob@slow.test", "--reason", "as asked")
    assert Recipient.objects.get().state == "discarded"
    with pytest.raises(CommandError, match="waits") as gone:
        run("queue", "discard", row.message.queue_id, "--reason", "as asked")
    assert gone.value.returncode == 3


def test_of_a_message_of_which_one_is_on_the_way_nothing_is_given_up(tenant):
    message = queue.message(tenant)
    queue.recipient(message, "a@slow.test", state="waiting")
    soon = timezone.now() + timedelta(minutes=5)
    queue.recipient(message, "b@slow.test", state="waiting", lease_until=soon, lease_by="mx worker 1")
    with pytest.raises(CommandError):
        run("queue", "discard", message.queue_id, "--reason", "as asked")
    assert set(Recipient.objects.values_list("state", flat=True)) == {"waiting"}


def test_completion_knows_groups_acts_options_and_names(mailbox, tmp_path):
    world.mailbox("shoes@demo.test")
    world.tenant("Second")
    script = tmp_path / "completion"
    # What the script would ask in a process of its own is answered here.
    answers = {kind: run("completion", "values", kind, prefix) for kind, prefix in (
        ("mailboxes", "shop@d"), ("tenants", "Se"),
    )}
    assert answers == {"mailboxes": "shop@demo.test\n", "tenants": "Second\n"}
    assert run("completion", "values", "mailboxes", "sho").split() == ["shoes@demo.test", "shop@demo.test"]
    asks = tmp_path / "asks"
    asks.write_text('#!/bin/sh\ncase "$3" in mailboxes) echo shop@demo.test;; tenants) echo Second;; esac\n')
    asks.chmod(0o755)
    text = run("completion", "bash")
    program = f"{sys.executable} {ROOT / 'manage.py'}"
    assert program in text
    script.write_text(text.replace(program, str(asks)))

    def completed(line):
        ask = f'. {script}; COMP_LINE="{line}" COMP_POINT={len(line)}; _posthouse; printf "%s\n" "${{COMPREPLY[@]}}"'
        return subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.split()

    assert completed("manage.py mail") == ["mailbox"]
    assert completed("manage.py mailbox su") == ["suspend"]
    assert completed("manage.py mailbox suspend --sen") == ["--sending-only"]
    assert completed("manage.py domain set demo.test --store l") == ["lmtp"]
    assert completed("manage.py mailbox list --tenant S") == ["Second"]
    # bash goes on after the last @ itself.
    assert completed("manage.py mailbox suspend shop@d") == ["demo.test"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_completion_in_zsh_offers_the_same(db, tmp_path):
    # zsh itself keeps what begins like the word under the cursor; its completion system is stood in for.
    text = run("completion", "zsh").replace(f"{sys.executable} {ROOT / 'manage.py'}", "echo Second; true")
    (tmp_path / "completion").write_text(text)

    def offered(*words):
        ask = (
            f'compdef() {{ : }}; compadd() {{ shift; print -r -- "$@" }}; . {tmp_path / "completion"}; '
            f'words=({" ".join(words)} ""); CURRENT=$#words; _posthouse'
        )
        return subprocess.run(["zsh", "-fc", ask], capture_output=True, text=True, check=True).stdout.split()

    assert "mailbox" in offered("manage.py") and "suspend" in offered("manage.py", "mailbox")
    assert offered("manage.py", "domain", "set", "x", "--store") == ["maildir", "lmtp", "installation"]
    assert offered("manage.py", "mailbox", "list", "--tenant") == ["Second"]


@pytest.mark.parametrize("name", OURS)
def test_help_teaches_with_examples(name):
    command = load_command_class("panel.operations", name)
    text = command.create_parser("manage.py", name).format_help()
    assert "examples:\n  manage.py" in text
    assert command.help in " ".join(text.split()) or len(command.help) > 40


@pytest.mark.once("sqlite")
def test_a_failure_is_one_sentence_or_one_object_and_its_exit_code_tells_its_kind(tmp_path):
    # A process of its own, with a database of its own.
    environment = {**os.environ, "POSTHOUSE_DATA": str(tmp_path)}
    environment.pop("DATABASE_URL", None)

    def manage(*arguments):
        return subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=120,
        )

    unmade = manage("tenant", "list")
    assert unmade.returncode == 5 and unmade.stderr.count("\n") == 1
    assert unmade.stderr.startswith("The database can't be used: ")
    assert manage("migrate", "-v0").returncode == 0
    refused = manage("mailbox", "suspend", "nobody@demo.test", "--reason", "x")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr == "There is no mailbox nobody@demo.test.\n"
    assert manage("mailbox", "explode").returncode == 2
    made = manage("tenant", "create", "Acme", "--json")
    assert made.returncode == 0 and json.loads(made.stdout)["name"] == "Acme"
    again = manage("tenant", "create", "Acme", "--json")
    assert again.returncode == 1 and again.stdout == "" and json.loads(again.stderr)["error"] == {
        "kind": "refused", "code": 1, "message": "There is a tenant Acme already.", "field": "name",
    }
    assert manage("tenant", "resume", "Acme").returncode == 4
    misspelt = manage("tenant", "show", "Acme", "--josn", "--json")
    assert misspelt.returncode == 2 and json.loads(misspelt.stderr)["error"]["kind"] == "usage"


# The demo


def passwords_of(folder: Path) -> list[list[str]]:
    return [line.split(" ") for line in (folder / "demo.txt").read_text().splitlines()]


def test_demo_is_made_once_with_its_passwords_kept(db, tmp_path):
    assert demo.seed(tmp_path) is True
    file = tmp_path / "demo.txt"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = passwords_of(tmp_path)
    assert [login for login, _ in lines] == ["admin@localhost", "shop@demo.test", "office@demo.test"]
    admin = User.objects.get(kind="panel")
    assert admin.is_superuser and admin.check_password(lines[0][1])
    for login, password in lines[1:]:
        local_part = login.partition("@")[0]
        assert verify_main(password, Credential.objects.get(mailbox__address__local_part=local_part).secret)
    assert Domain.objects.get().proved_by == "checked by us" and Tenant.objects.get().name == "Demo"
    before = file.read_bytes()
    assert demo.seed(tmp_path) is False
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["demo.txt"]


def test_demo_is_not_made_again_when_its_administrator_was_deleted(db, tmp_path):
    demo.seed(tmp_path)
    User.objects.filter(kind="panel").delete()
    assert demo.seed(tmp_path) is False


def test_demo_makes_no_owner_where_accounts_are(db, tmp_path):
    User.objects.create(kind="panel", email="ops@provider.example", password="!")
    assert demo.seed(tmp_path) is False
    assert not (tmp_path / "demo.txt").exists() and User.objects.count() == 1


def test_demo_whose_file_cannot_be_written_is_not_made(db, tmp_path):
    with pytest.raises(OSError, match="No such file"):
        demo.seed(tmp_path / "missing")
    assert not User.objects.exists() and not Tenant.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_demo_whose_commit_fails_is_made_anew(standard_plan, tmp_path, monkeypatch):
    class Crash(Exception):
        pass

    def write_and_crash(path, text):
        write(path, text)
        raise Crash

    write = demo._write
    monkeypatch.setattr(demo, "_write", write_and_crash)
    with pytest.raises(Crash):
        demo.seed(tmp_path)
    assert not User.objects.exists()
    lost = passwords_of(tmp_path)
    monkeypatch.setattr(demo, "_write", write)
    assert demo.seed(tmp_path) is True
    assert passwords_of(tmp_path) != lost
    assert User.objects.get(kind="panel").check_password(passwords_of(tmp_path)[0][1])


@pytest.mark.django_db(transaction=True)
def test_demo_made_at_once_by_two_is_made_by_one(standard_plan, tmp_path, in_threads):
    assert sorted(in_threads(demo.seed, tmp_path, tmp_path), key=str) == [False, True]
    assert User.objects.get(kind="panel").check_password(passwords_of(tmp_path)[0][1])


def test_demo_command_shows_the_passwords_when_it_made_them(db, tmp_path, settings):
    from dataclasses import replace

    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, data=tmp_path)
    shown = run("demo", "seed")
    assert shown == (tmp_path / "demo.txt").read_text()
    assert "Nothing to do" in run("demo", "seed")


def test_an_address_that_needs_quotes_is_found_as_lists_show_it(domain):
    run("mailbox", "create", '"a b"@demo.test')
    (listed,) = json.loads(run("mailbox", "list", "--json"))
    assert listed["address"] == '"a b"@demo.test'
    assert json.loads(run("mailbox", "show", listed["address"], "--json")) == listed


def test_a_catch_all_is_found_as_lists_show_it(mailbox):
    run("alias", "create", "@demo.test", "shop@demo.test")
    assert "*@demo.test" in run("alias", "list")
    assert "deleted" in run("alias", "remove", "*@demo.test")


def test_a_limit_that_is_not_understood_is_said(mailbox):
    for arguments, words in (
        (("shop@demo.test", "hour=1", "hour=2"), "twice"), (("plan:x", "hour=1"), "tenant:NAME or domain:NAME"),
    ):
        with pytest.raises(CommandError, match=words):
            run("limit", "set", *arguments)
    assert "200" in run("limit", "show", "shop@demo.test")


def test_queue_is_tried_and_given_up_by_what_the_options_name(tenant, other_tenant, monkeypatch, capsys):
    monkeypatch.setattr("panel.sending.bulk.STEP", 2)
    later = timezone.now() + timedelta(hours=5)
    for n in range(3):
        queue.waiting(tenant, f"a{n}@slow.test", due_at=later)
    queue.waiting(other_tenant, "b@slow.test", due_at=later)
    assert run("queue", "retry", "--hop", "slow.test", "--tenant", "Demo", "--dry-run") == (
        "Would be tried: 3 waiting recipients to slow.test of the tenant Demo.\n"
    )
    assert Recipient.objects.filter(due_at=later).count() == 4
    assert run("queue", "retry", "--hop", "slow.test", "--tenant", "Demo") == "3 recipients are due now.\n"
    assert capsys.readouterr().err.split("\n")[:2] == ["2 of 3", "3 of 3"], "progress, on standard error"
    assert Recipient.objects.filter(due_at=later).count() == 1
    give_up = ("queue", "discard", "--hop", "slow.test", "--reason", "gone")
    with pytest.raises(CommandError, match=r"no waiting recipients to slow\.test older than 10 min\.") as none:
        run(*give_up, "--older-than", "10min", "--yes")
    assert none.value.returncode == 4
    with pytest.raises(CommandError, match=r"4 waiting recipients to slow\.test would be given up: confirm it"):
        run(*give_up)
    report = json.loads(run(*give_up, "--yes", "--json"))
    assert report == {
        "which": "waiting recipients to slow.test", "asked": 4, "done": 4, "discarded": 4, "held": 0,
        "on_the_way": 0, "settled": 0,
    }
    assert not Recipient.objects.filter(state="waiting").exists()
    for wrong in (
        ("retry",), ("retry", "--all", "--hop", "x"), ("discard", "--reason", "x"), ("retry", "--older-than", "soon"),
        ("discard", "--hop", "x"), ("retry", "--tenant", "Nobody"), ("retry", "--held", "odd"),
    ):
        with pytest.raises(CommandError):
            run("queue", *wrong)
