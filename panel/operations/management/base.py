"""What the commands of `manage.py` share: acts with help that teaches, tables, passwords, errors.

A command that is refused says one sentence on standard error and ends with 1; one that was
not understood ends with 2, as argparse does it.
"""

import argparse
import getpass
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, DjangoHelpFormatter
from django.db.utils import InterfaceError, OperationalError, ProgrammingError

from panel.domains.models import Domain
from panel.operations.demo import new_password
from panel.rules.addresses import BadAddress
from panel.tenants.changes import ServiceError
from panel.tenants.models import Tenant

Act = Callable[..., None]


class Formatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the examples, and Django's own options last."""


class Command(BaseCommand):
    """A command with acts: `manage.py mailbox create …`. A subclass adds them in `add_acts`."""

    examples = ""
    # Each takes a quarter of a second; `manage.py check` makes them all.
    requires_system_checks: list[str] = []

    def add_acts(self, acts: "Acts") -> None:
        raise NotImplementedError

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name, subcommand, formatter_class=Formatter, epilog=_epilog(self.examples), **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_acts(Acts(parser.add_subparsers(title="acts", metavar="ACT", dest="act", required=True)))

    def handle(self, *args: Any, act: str, do: Act, **options: Any) -> None:
        texts = " ".join(str(value) for value in options.values())
        if any("\ud800" <= character <= "\udfff" for character in texts):
            raise CommandError("An argument is not UTF-8: type it in a terminal that is.")
        # The act's own options; Django's and call_command's are beside them.
        do(**{name: options[name] for name in inspect.signature(do).parameters})

    def execute(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute(*args, **options)
        except (ServiceError, BadAddress) as error:
            sentence = str(error)
        except CommandError as error:
            sentence = str(error)
        except (InterfaceError, OperationalError, ProgrammingError) as error:
            said = str(error).strip().partition("\n")[0]
            sentence = f"The database can't be used: {said}. `manage.py prepare` makes its tables."
        if not getattr(self, "_called_from_command_line", False) or options.get("traceback"):
            raise CommandError(sentence)
        self.stderr.write(clean(sentence))
        sys.exit(1)

    # Writing

    def say(self, text: str) -> None:
        """A line for a person, without characters that would steer the terminal."""
        self.stdout.write(clean(text))

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Any]], *, as_json: bool, empty: str) -> None:
        """The rows in aligned columns under their head, or as JSON; `empty` is said when there are none."""
        found = [[_cell(value) for value in row] for row in rows]
        if as_json:
            self.json([dict(zip(map(_key, head), row, strict=True)) for row in found])
            return
        if not found:
            self.say(empty)
            return
        texts = [list(head), *([_shown(value) for value in row] for row in found)]
        widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
        right = [all(isinstance(row[column], int) for row in found) for column in range(len(head))]
        for row in texts:
            cells = (
                text.rjust(width) if is_right else text.ljust(width)
                for text, width, is_right in zip(row, widths, right, strict=True)
            )
            self.stdout.write("  ".join(cells).rstrip())

    def json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, ensure_ascii=False, indent=2))

    def password(self, what: str, *, from_stdin: bool) -> tuple[str, bool]:
        """A password from standard input or asked for twice; else one made here. Whether it was made."""
        if from_stdin:
            line = sys.stdin.readline()
            if not line.strip("\r\n"):
                raise CommandError("There is no password on standard input.")
            return line.rstrip("\r\n"), False
        if not sys.stdin.isatty():
            return new_password(), True
        first = getpass.getpass(f"Password of {what} (nothing: one is made): ")
        if not first:
            return new_password(), True
        if getpass.getpass("The same again: ") != first:
            raise CommandError("The two passwords differ; nothing was changed.")
        return first, False

    def show_password(self, login: str, password: str, made: bool) -> None:
        """Show a password that was made here, once."""
        if made:
            self.stdout.write(f"The password of {login}, shown only now: {password}")


class Acts:
    """The acts of a command, each with its method, help and examples."""

    def __init__(self, subparsers: Any) -> None:
        self._subparsers = subparsers

    def add(self, name: str, do: Act, *, help: str, examples: str = "") -> argparse.ArgumentParser:
        parser = self._subparsers.add_parser(
            name, help=help, description=help, epilog=_epilog(examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(do=do)
        return parser

    def add_list(self, do: Act, *, help: str) -> argparse.ArgumentParser:
        parser = self.add("list", do, help=help)
        parser.add_argument("--json", action="store_true", dest="as_json", help="as JSON instead of a table")
        return parser


def add_reason(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--reason", default="", required=required, help="why, for the audit log; the tenant can read it"
    )


def add_password_stdin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-stdin", action="store_true", dest="from_stdin",
        help="read the password from standard input; without it you are asked, or one is made and shown once",
    )


def find_tenant(name: str) -> Tenant:
    """The tenant of this name. Raises ServiceError."""
    tenant = Tenant.objects.filter(name=name.strip()).first()
    if tenant is None:
        raise ServiceError(f"There is no tenant {name}: `manage.py tenant list` shows all.", "tenant")
    return tenant


def find_domain(name: str) -> Domain:
    """The domain of this name. Raises ServiceError."""
    from panel.domains.services import canonical_name

    domain = Domain.objects.filter(name=canonical_name(name)).select_related("tenant").first()
    if domain is None:
        raise ServiceError(f"There is no domain {name}: `manage.py domain list` shows all.", "domain")
    return domain


def clean(text: str) -> str:
    """The text with every character that is no letter, sign or blank as "?"."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def _cell(value: Any) -> Any:
    return value if isinstance(value, (int, list)) or value is None else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "" if value is None else clean(str(value))


def _key(head: str) -> str:
    return head.lower().replace(" ", "_")


def _epilog(examples: str) -> str:
    lines = [line.strip() for line in examples.strip().splitlines()]
    return "examples:\n" + "\n".join(f"  manage.py {line}" for line in lines) if lines else ""
