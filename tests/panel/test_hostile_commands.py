"""Hostile texts on the command line: a sentence and an exit code for each argument, and nothing that steers a terminal.

The acts and their arguments are those of the commands' own parsers, so that a new one is tried as well.
"""

import argparse
import functools
import io
import json
import os
import sys
from collections.abc import Iterator

import pytest
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import CommandError
from django.db import models

from panel.database import ids
from panel.mailboxes.models import LoginEvent
from panel.operations.management import base
from panel.sending.models import Attempt, Message, Recipient
from panel.tenants.models import AuditEntry
from tests.support.standing import Standing, everything, undone

pytestmark = [pytest.mark.django_db, pytest.mark.once("sqlite")]

OURS = sorted(name for name, app in get_commands().items() if app == "panel.operations")
# They write files and start nothing that takes a text of the caller's; tried by tests of their own.
ELSEWHERE = {"prepare", "demo", "dovecot"}
TEXTS = [
    "<script>alert(1)</script>", "{{ 7*7 }}{% now 'Y' %}{0.__class__} %s", "\x1b[31mred\x07", "a\x9b31mb", "a\u202eb",
    "a\nb\r\nBcc: x@elsewhere.test", "x" * 10_240, "'; DROP TABLE x; --", "", " ", "\ud800", os.fsdecode(b"\xff\xfe"),
    "\x00", "٣", "9" * 30, "=1+1", "../../etc/passwd", "--",
]
# What an argument is when another one is the hostile one.
GOOD = {"address": "ann@acme.test", "name": "ann@acme.test", "tenant": "Acme", "domain": "acme.test", "number": "1"}


@pytest.fixture
def _django_db_helper(standing: Standing) -> Iterator[None]:
    """In place of pytest-django's, which closes the connection after each test: the world is in its transaction."""
    with undone():
        yield


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("an unusual password\n"))


def acts() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    for name in OURS:
        if name in ELSEWHERE:
            continue
        parser = load_command_class("panel.operations", name).create_parser("manage.py", name)
        for one in parser._subparsers._group_actions:
            for act, of_act in one.choices.items():
                yield name, act, of_act


ACTS = list(acts())
HELD_BACK = {"mailbox migrate"}  # connects to another host; its accounts file is tried in test_moving
TAKING_TEXT = [
    (name, act, one) for name, act, parser in ACTS for one in parser._actions
    if one.nargs != 0 and not one.choices and one.dest != "help" and f"{name} {act}" not in HELD_BACK
]


def arguments(parser: argparse.ArgumentParser, hostile: argparse.Action, text: str) -> list[str]:
    """What is typed: the hostile text where it belongs, and something good for all else that is needed."""
    typed = []
    for one in parser._actions:
        if one is hostile:
            typed.append((one, text))
        elif one.required and one.dest != "help" and (one.option_strings or one.nargs not in ("?", "*")):
            typed.append((one, str(next(iter(one.choices))) if one.choices else GOOD.get(one.dest, "1")))
    for group in parser._mutually_exclusive_groups:
        if group.required and hostile not in group._group_actions:
            one = group._group_actions[0]
            typed.append((one, "1"))
    options = [f"{one.option_strings[0]}={value}" for one, value in typed if one.option_strings and one.nargs != 0]
    return [*options, "--", *(value for one, value in typed if not one.option_strings)]


@functools.cache
def command(name: str) -> base.Command:
    """A command that makes its parser once: making it takes longer than what most acts do."""
    made = load_command_class("panel.operations", name)
    parser = made.create_parser("manage.py", name)
    made.create_parser = lambda *_, **__: parser  # type: ignore[method-assign]
    return made


def is_harmless(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize(("name", "act", "one"), TAKING_TEXT, ids=lambda each: getattr(each, "dest", each))
def test_each_argument_takes_a_hostile_text_or_says_what_is_wrong(name, act, one, capsys):
    """One sentence without a traceback; what is refused has changed nothing; what is said is harmless."""
    parser = next(parser for group, named, parser in ACTS if (group, named) == (name, act))
    before = everything()
    for text in TEXTS:
        out, err = io.StringIO(), io.StringIO()
        with undone() as inside:
            try:
                call_command(command(name), act, *arguments(parser, one, text), stdout=out, stderr=err)
            except CommandError as error:
                said = base.clean(str(error))
                assert said.strip(), text[:40]
                assert len(said) < 2_000 or "line" in said, (text[:40], len(said))
                inside.is_kept = True
            assert is_harmless(out.getvalue()), (text[:40], out.getvalue())
            assert is_harmless(err.getvalue()), (text[:40], err.getvalue())
    assert everything() == before, "what was refused has changed something"
    captured = capsys.readouterr()
    assert is_harmless(captured.out) and is_harmless(captured.err)


# What is shown of what came by mail

ODD = "\x1b]0;title\x07\x1b[31m\x9b31m\u202eevil\u2028\x7f\r\nforged@elsewhere.test  delivered"


def poison(model: type[models.Model]) -> None:
    """Put the odd text into every text column that no choice bounds; what is too long is cut."""
    for one in model._meta.concrete_fields:
        if isinstance(one, (models.CharField, models.TextField)) and not one.choices and one.name != "outcome":
            model.objects.update(**{one.name: ODD[: one.max_length]})


SHOWING = [
    ("queue", "list"), ("queue", "list", "--tenant", "Acme"), ("queue", "show", "QUEUE_ID"),
    ("queue", "show", "QUEUE_ID", "--tenant", "Acme"), ("login", "list"), ("audit", "list"), ("audit", "show", "ENTRY"),
    ("mailbox", "list"), ("mailbox", "show", "ann@acme.test"), ("tenant", "list"), ("account", "list"),
]


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("typed", SHOWING, ids=" ".join)
def test_what_came_by_mail_is_shown_without_a_sign_that_steers_the_terminal(typed, as_json, standing):
    """Subjects, replies of other servers, names said in EHLO, logins that somebody tried."""
    message = standing.rows[Recipient].mine.message
    for model in (Message, Recipient, Attempt, LoginEvent):
        poison(model)
    AuditEntry.objects.update(subject_name=ODD, actor_name=ODD, reason=ODD, before={ODD: ODD}, after={"x": [ODD]})
    names = {"QUEUE_ID": ids.to_text(message.pk), "ENTRY": str(AuditEntry.objects.latest("pk").pk)}
    out = io.StringIO()
    call_command(*(names.get(each, each) for each in typed), *(["--json"] if as_json else []), stdout=out)
    assert is_harmless(out.getvalue())
    if as_json:
        json.loads(out.getvalue())
    else:
        assert not any(line.startswith("forged@elsewhere.test") for line in out.getvalue().splitlines())
