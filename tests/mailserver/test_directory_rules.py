"""The rules of mailboxes as the directory gives them: with the resolution, and at no cost for those without."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from mailserver.directory import logins, nodes, resolution
from panel.domains.models import Domain
from panel.rules.addresses import parse_address
from panel.rules.facts import Resolution, Verdict
from panel.rules.limits import Kind, Window
from panel.rules.status import Status
from panel.tenants.models import Tenant
from tests.support import world

pytestmark = pytest.mark.django_db


@pytest.fixture
def demo() -> Tenant:
    made = world.tenant("Demo")
    world.domain("demo.test", made)
    world.mailbox("shop@demo.test")
    world.mailbox("office@demo.test")
    return made


def box(local_part: str):
    from panel.mailboxes.models import Mailbox

    return Mailbox.objects.get(address__local_part=local_part)


def resolve(text: str) -> Resolution:
    return resolution.resolve(
        parse_address(text), separator="+", postmaster=None, hostname="mx.posthouse.test", now=timezone.now()
    ).value


def leads(text: str) -> list[str]:
    return [str(each.resolved) for each in resolve(text).deliveries]


def test_a_mailbox_without_rules_costs_no_question_and_no_steps(demo):
    with CaptureQueriesContext(connection) as asked:
        found = resolve("shop@demo.test")
    assert found.steps == ()
    assert len(asked) == 2, [each["sql"][:100] for each in asked]


def test_a_row_of_rules_that_do_nothing_is_none(demo):
    world.rules(box("shop"))
    assert resolve("shop@demo.test").steps == ()


def test_all_rules_come_with_the_resolution(demo):
    world.rules(
        box("shop"), vacation=True, vacation_text="Away.", vacation_days=3, junk=True, blocked=["spam.test"],
        forward_to=["far@elsewhere.test", "office@demo.test", "not an address"], forward_keep=False,
    )
    found = resolve("shop+x@demo.test")
    (start, office) = found.steps
    rules = start.mailbox.rules
    assert (rules.vacation.text, rules.vacation.days, rules.junk, rules.blocked) == (
        "Away.", 3, True, frozenset({"spam.test"}),
    )
    assert [str(each.resolved) for each in start.outside] == ["far@elsewhere.test"]
    assert office.mailbox.rules is None
    assert leads("shop@demo.test") == ["far@elsewhere.test", "office@demo.test"]


def test_an_answer_is_charged_as_if_its_owner_sent_it(demo):
    world.rules(box("shop"), vacation=True, vacation_text="Away.")
    world.limit(box("shop"), hour=5)
    charged = resolve("shop@demo.test").steps[0].mailbox.rules.vacation.charged
    assert [subject.kind for subject in charged] == [Kind.MAILBOX, Kind.TENANT]
    assert dict(charged[0].limits)[Window.HOUR] == 5
    assert resolve("shop@demo.test").deliveries[0].charged == (), "what it answers costs nothing else"


def test_a_forward_outside_is_charged_to_the_mailboxs_tenant_and_limited_domain(demo):
    world.limit(Domain.objects.get(name="demo.test"), hour=5)
    world.rules(box("shop"), forward_to=["far@elsewhere.test"])
    far = next(each for each in resolve("shop@demo.test").deliveries if each.mailbox is None)
    assert [(subject.kind, subject.id) for subject in far.charged] == [
        (Kind.DOMAIN, Domain.objects.get(name="demo.test").pk), (Kind.TENANT, demo.pk),
    ]
    assert resolve("shop@demo.test").is_charged


def test_who_may_not_send_forwards_and_answers_no_more_but_keeps_its_block_list(demo):
    made = box("shop")
    world.rules(
        made, vacation=True, vacation_text="Away.", forward_to=["far@elsewhere.test"], forward_keep=False,
        blocked=["spam.test"],
    )
    type(made).objects.filter(pk=made.pk).update(status=Status.NO_SENDING)
    found = resolve("shop@demo.test")
    assert leads("shop@demo.test") == ["shop@demo.test"]
    rules = found.steps[0].mailbox.rules
    assert (rules.vacation, rules.forwards, rules.blocked) == (None, False, frozenset({"spam.test"}))


def test_a_lapsed_proof_ends_answers(demo):
    world.rules(box("shop"), vacation=True, vacation_text="Away.")
    Domain.objects.update(proof="lapsed")
    assert resolve("shop@demo.test").steps == ()


def test_mailboxes_that_forward_to_each_other_both_get_the_mail(demo):
    world.rules(box("shop"), forward_to=["office@demo.test"])
    world.rules(box("office"), forward_to=["shop@demo.test"], forward_keep=False)
    assert leads("shop@demo.test") == ["shop@demo.test"]
    world.rules(box("shop"), forward_to=["office@demo.test"], forward_keep=False)
    assert sorted(leads("office@demo.test")) == ["office@demo.test", "shop@demo.test"]


def test_a_circle_of_aliases_alone_is_still_refused(demo):
    world.rules(box("shop"), forward_to=["a@demo.test"])
    world.alias("a@demo.test", "b@demo.test")
    world.alias("b@demo.test", "a@demo.test")
    assert resolve("a@demo.test").verdict is Verdict.LOOPS
    assert leads("shop@demo.test") == ["shop@demo.test"], "who forwards there keeps the mail"


def test_a_forward_to_nobody_leaves_the_mail_here(demo):
    world.rules(box("shop"), forward_to=["nobody@demo.test"], forward_keep=False)
    assert leads("shop@demo.test") == ["shop@demo.test"]


def test_an_alias_of_some_who_forward_leads_to_each_once(demo):
    world.rules(box("shop"), forward_to=["far@elsewhere.test", "office@demo.test"])
    world.alias("all@demo.test", "shop@demo.test", "office@demo.test", "far@elsewhere.test")
    assert sorted(leads("all@demo.test")) == ["far@elsewhere.test", "office@demo.test", "shop@demo.test"]


def test_a_forward_gives_no_right_to_send_as_who_forwards(demo):
    world.rules(box("shop"), forward_to=["office@demo.test"])
    from django.utils import timezone

    login = logins.login(box("office").credentials.get().pk, separator="+", now=timezone.now()).value
    assert parse_address("shop@demo.test") not in login.may_send_as


def test_authd_is_told_who_wants_junk_in_junk(demo):
    world.rules(box("shop"), junk=True)
    assert nodes.mailbox(parse_address("shop@demo.test")).value.rules.junk
    assert nodes.mailbox(parse_address("office@demo.test")).value.rules is None


@pytest.mark.parametrize("targets", [
    [f"x{number}@elsewhere.test" for number in range(resolution.MOST_DELIVERIES + 1)], ["round@other.test"],
], ids=["too wide", "a circle"])
@pytest.mark.parametrize("keeps", [True, False])
def test_a_forward_to_anothers_alias_that_leads_too_far_costs_no_mail(demo, targets, keeps):
    """Another tenant's alias must not make mail to a mailbox here come back."""
    world.domain("other.test", world.tenant("Other"))
    world.alias("list@other.test", *targets)
    world.alias("round@other.test", "list@other.test")
    assert resolve("list@other.test").verdict is Verdict.LOOPS
    world.rules(box("shop"), forward_to=["list@other.test"], forward_keep=keeps, junk=True)
    found = resolve("shop+x@demo.test")
    assert (found.verdict, leads("shop+x@demo.test")) == (Verdict.HERE, ["shop@demo.test"])
    assert found.steps[0].mailbox.rules.junk and "other.test" in found.domains
