"""What the commands of `manage.py` share: acts with help that teaches, tables, JSON, passwords, errors.

A command that fails says one sentence on standard error and ends with a code of `Exit`. With
--json a list is an array of objects, and every other act writes one: the row of what it was
about, with the keys that `list` gives it (rows.py), or {"done": sentence} where there is none.
An error is {"error": {"kind", "code", "message", "field"}} on standard error.
"""

import argparse
import getpass
import inspect
import json
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser, DjangoHelpFormatter
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.db.utils import InterfaceError, OperationalError, ProgrammingError
from django.utils import timezone

from panel.domains.models import Domain
from panel.operations.demo import new_password
from panel.rules.addresses import BadAddress
from panel.tenants.changes import AlreadySo, NotFound, ServiceError
from panel.tenants.models import Tenant
from panel.tenants.shown import about, read_size, size

Act = Callable[..., None]
Row = Mapping[str, Any]


class Exit(IntEnum):
    """How a command ends; `kind` in the JSON of an error is the name in lower case."""

    DONE = 0
    REFUSED = 1  # a rule says no
    USAGE = 2  # it was not understood
    NOT_FOUND = 3  # what it names is not here
    ALREADY_SO = 4  # there was nothing to do
    UNAVAILABLE = 5  # the database can't be used: try again


EXITS = "exit codes: 0 done, 1 refused, 2 not understood, 3 not found, 4 nothing to do, 5 no database just now"

MOST_TYPED = 100_000  # characters on standard input
_LONG = re.compile(r"\S{400,}")  # what a sentence repeats of such a word is its beginning


class Usage(ServiceError):
    """Options that don't go together, which argparse can't tell."""


class Formatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the examples, and Django's own options last."""


class Command(BaseCommand, ABC):
    """A command with acts: `manage.py mailbox create …`."""

    examples = ""
    # Each takes a quarter of a second; `manage.py check` makes them all.
    requires_system_checks: list[str] = []
    as_json = False

    @abstractmethod
    def add_acts(self, acts: "Acts") -> None:
        """Add them, each with its options."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(
            prog_name, subcommand, formatter_class=Formatter, epilog=f"{_epilog(self.examples)}\n\n{EXITS}", **kwargs
        )
        _say_usage_errors_as_json(parser)
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_acts(Acts(parser.add_subparsers(title="acts", metavar="ACT", dest="act", required=True)))

    def handle(self, *args: Any, act: str, do: Act, **options: Any) -> None:
        texts = "".join(_texts(list(options.values())))
        if any("\ud800" <= character <= "\udfff" for character in texts):
            raise CommandError("An argument is not UTF-8: type it in a terminal that is.")
        if "\0" in texts:
            raise CommandError("An argument holds a NUL byte.")
        parameters = inspect.signature(do).parameters
        lists = {name for name, one in parameters.items() if one.annotation not in (str, str | None)}
        if any(isinstance(value, list) and ([] in value or name not in lists) for name, value in options.items()):
            # argparse took the value for the end of the options, and left a list of nothing.
            raise CommandError('"--" is no value: leave the option out, or name another.', returncode=Exit.USAGE)
        self.as_json = bool(options.get("as_json"))
        self._said: list[str] = []
        self._result: dict[str, Any] | None = {} if self.as_json else None
        # The act's own options; Django's and call_command's are beside them.
        do(**{name: options[name] for name in parameters})
        if self._result is not None:
            self._write_json(self._result if set(self._result) - {"secret"} else {
                "done": " ".join(self._said), **self._result,
            })

    def execute(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute(*args, **options)
        except (ServiceError, BadAddress) as error:
            sentence, field, code = str(error), getattr(error, "field", ""), _exit_of(error)
        except CommandError as error:
            sentence, field, code = str(error), "", Exit(error.returncode)
        except (InterfaceError, OperationalError, ProgrammingError) as error:
            said = str(error).strip().partition("\n")[0]
            sentence = f"The database can't be used: {said}. `manage.py prepare` makes its tables."
            field, code = "", Exit.UNAVAILABLE
        except BrokenPipeError:
            # `… | head`: whoever read has enough. What is still buffered goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(Exit.DONE)
        sentence = _LONG.sub(lambda word: f"{word[0][:80]}…", sentence)
        if not getattr(self, "_called_from_command_line", False) or options.get("traceback"):
            raise CommandError(sentence, returncode=code)
        self.stderr.write(error_json(sentence, code, field) if options.get("as_json") else clean(sentence))
        sys.exit(code)

    # Writing

    def say(self, text: str) -> None:
        """A line for a person, without characters that would steer the terminal."""
        if self.as_json:
            self._said.append(text)
        else:
            self.stdout.write(one_line(text))

    def done(self, sentence: str, row: Row) -> None:
        """What was done, for a person; with --json the row that it was done to."""
        self.say(sentence)
        if self._result is not None:
            self._result.update(row)

    def show_row(self, row: Row) -> None:
        """One row, a line a value."""
        if self.as_json:
            self.json(row)
            return
        width = max(map(len, row))
        for key, value in row.items():
            name = key.removesuffix("_bytes").replace("_", " ")
            self.stdout.write(f"{name:<{width}}  {_shown_as(key, value)}".rstrip())

    def rows(self, rows: Iterable[Row], columns: Sequence[str], *, empty: str) -> None:
        """The columns of the rows, aligned; with --json the whole rows. `empty` is said when there are none."""
        if self.as_json:
            self.json(list(rows))
            return
        head = [column.removesuffix("_bytes").replace("_", " ").upper() for column in columns]
        cells = [
            [row[key] if isinstance(row[key], int) and not key.endswith("_bytes") else _shown_as(key, row[key])
             for key in columns]
            for row in rows
        ]
        self.table(head, cells, empty=empty)

    def table(
        self, head: Sequence[str], rows: Iterable[Sequence[Any]], *, as_json: bool = False, empty: str
    ) -> None:
        """The rows in aligned columns under their head, or as JSON; `empty` is said when there are none."""
        found = [[_cell(value) for value in row] for row in rows]
        if as_json or self.as_json:
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
        """The act's whole result."""
        self._result = None
        self._write_json(value)

    def _write_json(self, value: Any) -> None:
        self.stdout.write(_harmless_json(value, indent=2))

    def unchanged(self, before: Row, after: Row, what: str) -> None:
        """Raises AlreadySo when `set` found everything as it was asked for."""
        if before == after:
            raise AlreadySo(f"Nothing to change: {what} is so already.")

    def password(self, what: str, *, from_stdin: bool) -> tuple[str, bool]:
        """A password from standard input or asked for twice; else one made here. Whether it was made."""
        if from_stdin:
            line = from_standard_input(sys.stdin.readline)
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
        if made and self._result is not None:
            self._result["secret"] = password
        elif made:
            self.stdout.write(f"The password of {login}, shown only now: {password}")


class Acts:
    """The acts of a command, each with its method, help and examples."""

    def __init__(self, subparsers: Any) -> None:
        self._subparsers = subparsers

    def add(self, name: str, do: Act, *, help: str, examples: str = "") -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = self._subparsers.add_parser(
            name, help=help, description=help, epilog=_epilog(examples),
            formatter_class=argparse.RawDescriptionHelpFormatter, conflict_handler="resolve",
        )
        parser.add_argument("--json", action="store_true", dest="as_json", help="as JSON instead of text")
        parser.set_defaults(do=do)
        _say_usage_errors_as_json(parser)
        return parser

    def add_list(self, do: Act, *, help: str, examples: str = "") -> argparse.ArgumentParser:
        return self.add("list", do, help=help, examples=examples)


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
    """The tenant of this name, or of RESELLER/NAME. Raises NotFound; ServiceError where several have the name."""
    tenants = Tenant.objects.select_related("plan", "parent")
    # One that is nobody's customer first: of these there is one of a name. What a reseller calls its customer, such
    # as RESELLER/NAME, comes last.
    found = list(tenants.filter(name=name.strip()).order_by(F("parent").asc(nulls_first=True))[:2])
    if not found or found[0].parent:
        path = Concat("parent__name", Value("/"), "name")
        named = tenants.alias(path=path).filter(parent__isnull=False, path=name.strip())
        found = list(named.order_by("pk")[:2]) or found
    if not found:
        raise NotFound(f"There is no tenant {name}: `manage.py tenant list` shows all.", "tenant")
    if len(found) > 1 and found[0].parent:
        raise ServiceError(f"Several resellers have a customer {name}: write RESELLER/{name.strip()}.", "tenant")
    return found[0]


def find_domain(name: str) -> Domain:
    """The domain of this name. Raises NotFound, and ServiceError for what is no name."""
    from panel.domains.services import canonical_name

    domain = Domain.objects.filter(name=canonical_name(name)).select_related("tenant").first()
    if domain is None:
        raise NotFound(f"There is no domain {name}: `manage.py domain list` shows all.", "domain")
    return domain


def from_standard_input(read: Callable[[int], str]) -> str:
    """What comes on standard input, as `read` takes it, to a bound beyond all that is taken. Raises ServiceError."""
    try:
        return read(MOST_TYPED)
    except UnicodeDecodeError:
        raise ServiceError("What came on standard input is not UTF-8.") from None


def read_bound(text: str, field: str) -> int | None:
    """How many bytes "5GB" allows; None for "unlimited". Raises ServiceError."""
    if text.strip().lower() == "unlimited":
        return None
    try:
        number = read_size(text)
        if number is None:
            raise ValueError("write a size such as 5 GB or 500 MB")
    except ValueError as error:
        raise ServiceError(f"{text[:40]!r} is no size: {error}, or unlimited.", field) from None
    return number


def read_moment(text: str, *, ago: bool = False) -> datetime:
    """2027-12-31 or 2027-12-31T18:00, in UTC unless told; or "90d", so many days from now or ago. Raises ValueError."""
    text = text.strip()
    days = re.fullmatch(r"([0-9]{1,5})d", text)
    if days:
        return timezone.now() + timedelta(days=int(days[1])) * (-1 if ago else 1)
    at = datetime.fromisoformat(text)
    try:
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError("beyond the calendar") from error


def read_end(text: str) -> datetime:
    """When something is to expire, as read_moment takes it. Raises ServiceError."""
    try:
        return read_moment(text)
    except ValueError:
        raise ServiceError(f"{text!r} is no date: write 2027-12-31, 2027-12-31T18:00 or 90d.", "expires_at") from None


def clean(text: str) -> str:
    """The text with every character that is no letter, sign or blank as "?"."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def one_line(text: str) -> str:
    """The same in one line: what somebody else wrote can't pretend to be the next one."""
    return clean(text).replace("\n", "?")


def error_json(sentence: str, code: Exit, field: str = "") -> str:
    error = {"kind": code.name.lower(), "code": int(code), "message": sentence, "field": field}
    return _harmless_json({"error": error})


def _harmless_json(value: Any, indent: int | None = None) -> str:
    """As JSON, in which what would steer a terminal is escaped like any other control character."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)
    return "".join(
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]
        for character in text
    ) if not text.isprintable() else text


def _texts(value: Any) -> Iterator[str]:
    """Every text among the values, in lists as well."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _exit_of(error: Exception) -> Exit:
    for kind, code in ((NotFound, Exit.NOT_FOUND), (AlreadySo, Exit.ALREADY_SO), (Usage, Exit.USAGE)):
        if isinstance(error, kind):
            return code
    return Exit.REFUSED


def _say_usage_errors_as_json(parser: argparse.ArgumentParser) -> None:
    as_text = parser.error

    def error(message: str) -> NoReturn:
        message = clean(_LONG.sub(lambda word: f"{word[0][:80]}…", message))
        if getattr(parser, "called_from_command_line", False) and "--json" in sys.argv:
            sys.stderr.write(f"{error_json(message, Exit.USAGE)}\n")
            sys.exit(Exit.USAGE)
        as_text(message)

    parser.error = error  # type: ignore[method-assign]


def _plain(value: Any) -> Any:
    """A value as JSON has it: times in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else str(value)


def _shown_as(key: str, value: Any) -> str:
    if key == "used_bytes":
        return "unknown" if value is None else about(value)
    if key.endswith("_bytes"):
        return size(value) or "unlimited"
    return _shown(value)


def _cell(value: Any) -> Any:
    return value if isinstance(value, (int, list)) or value is None else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "" if value is None else one_line(str(value))


def _key(head: str) -> str:
    return head.lower().replace(" ", "_")


def _epilog(examples: str) -> str:
    lines = [line.strip() for line in examples.strip().splitlines()]
    return "examples:\n" + "\n".join(f"  manage.py {line}" for line in lines) if lines else ""
