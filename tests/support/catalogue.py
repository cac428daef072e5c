"""The panel's texts and their translations, without GNU gettext's programs.

`python -m tests.support.catalogue` writes each language's .po anew (every text of the sources, those of a
file together, with the translations that are there), compiles its .mo, and tells what isn't translated.
The formats: GNU gettext manual, "The Format of PO Files" and "The Format of GNU MO Files".
"""

import ast
import os
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOCALES = ROOT / "panel" / "locale"

# Function: which arguments are the context, the text and its plural. What panel/rules says in a
# Sentence, a Record and a BadAddress is translated where it is shown.
_ARGUMENTS: dict[str, tuple[int | None, int, int | None]] = {
    "gettext": (None, 0, None), "ngettext": (None, 0, 1), "pgettext": (0, 1, None), "npgettext": (0, 1, 2),
}
_SHOWN_ELSEWHERE = {"Sentence": 0, "Record": 6, "BadAddress": 0}
_IN_A_TEMPLATE = re.compile(r"\b(n?p?gettext|_)\(")


@dataclass(frozen=True, slots=True)
class Entry:
    """A text, and how it is said in another language: one form, or one for each plural; none in the sources."""

    text: str
    context: str | None = None
    plural: str | None = None
    files: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    is_fuzzy: bool = False
    comments: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str | None, str]:
        return self.context, self.text

    @property
    def is_translated(self) -> bool:
        return bool(self.forms) and all(self.forms) and not self.is_fuzzy


@dataclass(slots=True)
class Catalogue:
    """`head` is the entry of the empty text: the file's own fields, and in its comments the glossary."""

    head: Entry
    entries: list[Entry] = field(default_factory=list)
    obsolete: int = 0  # lines that were struck out


# What the sources hold


def texts() -> dict[tuple[str | None, str], Entry]:
    """Every text that is shown in the reader's language, in the order of its files."""
    found: dict[tuple[str | None, str], Entry] = {}
    programs = [path for folder in ("mailserver", "panel") for path in (ROOT / folder).rglob("*.py")]
    for path in sorted([*programs, *(ROOT / "panel" / "templates").rglob("*.*")]):
        name, source = path.relative_to(ROOT).as_posix(), path.read_text()
        for entry in _of_python(source) if path.suffix == ".py" else _of_template(source, name):
            known = found.get(entry.key, entry)
            found[entry.key] = replace(
                known, plural=known.plural or entry.plural, files=tuple(dict.fromkeys((*known.files, name)))
            )
    return found


def _of_python(source: str) -> Iterator[Entry]:
    tree = ast.parse(source)
    called = {
        each.asname or each.name: each.name.removesuffix("_lazy").removesuffix("_noop")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "django.utils.translation" for each in node.names
    }
    named = {
        node.targets[0].id: node.value for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        name = node.func.id
        if name in _SHOWN_ELSEWHERE and len(node.args) > _SHOWN_ELSEWHERE[name]:
            given = node.args[_SHOWN_ELSEWHERE[name]]
            text = _literal(named.get(given.id, given) if isinstance(given, ast.Name) else given)
            if text:
                yield Entry(text)
        elif called.get(name) in _ARGUMENTS:
            yield from _of_call(called[name], node.args)


def _of_template(source: str, name: str) -> Iterator[Entry]:
    # Imported late: the program below sets Django up for it.
    from django.utils.translation.template import templatize

    code = templatize(source, origin=name)
    for found in _IN_A_TEMPLATE.finditer(code):
        yield from _of_call(found[1] if found[1] != "_" else "gettext", _call_at(code, found.start()).args)


def _call_at(code: str, start: int) -> ast.Call:
    """The call that begins there: to the first parenthesis that ends it."""
    end = start
    while end := code.index(")", end) + 1:
        try:
            tree = ast.parse(code[start:end], mode="eval").body
        except SyntaxError:
            continue
        assert isinstance(tree, ast.Call)
        return tree
    raise AssertionError


def _of_call(function: str, arguments: list[ast.expr]) -> Iterator[Entry]:
    """Nothing where the text is a variable: it stands elsewhere."""
    context, text, plural = (None if at is None else _literal(arguments[at]) for at in _ARGUMENTS[function])
    if text:
        yield Entry(text, context, plural)


def _literal(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


# .po


def read(path: Path) -> Catalogue:
    """A .po file. Raises ValueError at a line that is none of it."""
    entries: list[Entry] = []
    obsolete = 0
    for block in re.split(r"\n\s*\n", path.read_text()):
        lines = [line for line in block.splitlines() if not line.startswith("#~")]
        obsolete += len(block.splitlines()) - len(lines)
        if lines:
            entries.append(_entry(lines))
    head = entries.pop(0)
    if head.text:
        raise ValueError(f"{path} begins without its own fields")
    return Catalogue(head, entries, obsolete)


def _entry(lines: list[str]) -> Entry:
    values: dict[str, str] = {}
    comments: list[str] = []
    files: list[str] = []
    is_fuzzy, last = False, ""
    for line in lines:
        if line.startswith("#:"):
            files += line[2:].split()
        elif line.startswith("#,"):
            is_fuzzy = is_fuzzy or "fuzzy" in line
        elif line.startswith("#"):
            comments.append(line)
        elif found := re.fullmatch(r'(?:(msgctxt|msgid|msgid_plural|msgstr(?:\[\d\])?) )?(".*")', line):
            last = found[1] or last
            values[last] = values.get(last, "") + ast.literal_eval(found[2])
        else:
            raise ValueError(f"no line of a .po: {line}")
    forms = tuple(value for name, value in values.items() if name.startswith("msgstr"))
    return Entry(
        values["msgid"], values.get("msgctxt"), values.get("msgid_plural"), tuple(files), forms, is_fuzzy,
        tuple(comments),
    )


def write(path: Path, catalogue: Catalogue) -> None:
    path.write_text("\n".join("\n".join(_lines(each)) + "\n" for each in (catalogue.head, *catalogue.entries)))


def _lines(entry: Entry) -> Iterator[str]:
    yield from entry.comments
    yield from (f"#: {name}" for name in entry.files)
    if entry.is_fuzzy:
        yield "#, fuzzy"
    if entry.context is not None:
        yield f"msgctxt {_quoted(entry.context)}"
    yield f"msgid {_quoted(entry.text)}"
    if entry.plural is None:
        yield f"msgstr {_quoted(entry.forms[0])}"
        return
    yield f"msgid_plural {_quoted(entry.plural)}"
    yield from (f"msgstr[{at}] {_quoted(form)}" for at, form in enumerate(entry.forms))


def _quoted(text: str) -> str:
    escaped = [
        line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for line in text.splitlines(keepends=True)
    ]
    lines = [f'"{line}"' for line in escaped]
    return "\n".join(['""', *lines]) if len(lines) > 1 else "".join(lines) or '""'


def plurals(catalogue: Catalogue) -> int:
    """How many forms a text with a plural has in this language."""
    return int(re.findall(r"nplurals=(\d)", catalogue.head.forms[0])[0])


def renewed(catalogue: Catalogue, sources: Iterable[Entry]) -> Catalogue:
    """With what the sources hold now: translations that are there stay, new texts have none, gone ones go."""
    known = {each.key: each for each in catalogue.entries}
    entries = []
    for source in sources:
        now = known.get(source.key, source)
        count = 1 if source.plural is None else plurals(catalogue)
        forms = (*now.forms, *[""] * count)[:count]
        entries.append(replace(source, forms=forms, is_fuzzy=now.is_fuzzy, comments=now.comments))
    return Catalogue(catalogue.head, sorted(entries, key=lambda each: each.files))


# .mo


def compiled(catalogue: Catalogue) -> bytes:
    """The catalogue as gettext reads it: texts and translations by offset, sorted by text; no hash table.

    A text with a plural stands there alone as well: in CPython 3.11.2 who asks without a number finds no other.
    """
    translated = [each for each in (catalogue.head, *catalogue.entries) if each.is_translated]
    alone = [replace(each, plural=None, forms=each.forms[:1]) for each in translated if each.plural is not None]
    pairs = sorted(map(_pair, (*translated, *alone)))
    tables, heap = [], b""
    begin = 7 * 4 + 16 * len(pairs)
    for side in zip(*pairs, strict=True):
        for value in side:
            tables.append(struct.pack("<II", len(value), begin + len(heap)))
            heap += value + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, begin)
    return head + b"".join(tables) + heap


def _pair(entry: Entry) -> tuple[bytes, bytes]:
    context = "" if entry.context is None else f"{entry.context}\x04"
    plural = "" if entry.plural is None else f"\0{entry.plural}"
    return f"{context}{entry.text}{plural}".encode(), "\0".join(entry.forms).encode()


def files() -> list[Path]:
    """The .po of each language."""
    return sorted(LOCALES.glob("*/LC_MESSAGES/django.po"))


def main() -> int:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "panel.settings")
    django.setup()
    sources, left = texts().values(), 0
    for path in files():
        catalogue = renewed(read(path), sources)
        write(path, catalogue)
        path.with_suffix(".mo").write_bytes(compiled(catalogue))
        without = [each for each in catalogue.entries if not each.is_translated]
        left += len(without)
        print(f"{path.relative_to(ROOT)}: {len(catalogue.entries)} texts, {len(without)} without a translation")
        for each in without:
            print(f"  {each.files[0]}: {each.text}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
