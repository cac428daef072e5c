"""What Outlook asks: a small XML document from anybody, so bounded and without entities (MS-OXDSCLI §3.1.5)."""

import xml.parsers.expat
from dataclasses import dataclass

MOST_BYTES = 16 * 1024
MOST_DEPTH = 10
_WANTED = ("EMailAddress", "AcceptableResponseSchema")


class BadQuestion(ValueError):
    """No question that Outlook would ask."""


@dataclass(frozen=True, slots=True)
class Question:
    """The address whose settings are asked for, and the schema of the answer; empty where there was none."""

    address: str
    schema: str


def read(document: bytes) -> Question:
    """Raises BadQuestion: not XML, too large, too deep, or with a DOCTYPE, as an entity's expansion needs."""
    if len(document) > MOST_BYTES:
        raise BadQuestion("too large")
    found: dict[str, str] = {}
    path: list[str] = []

    def start(name: str, attributes: object) -> None:
        path.append(name.rpartition(" ")[2])
        if len(path) > MOST_DEPTH:
            raise BadQuestion("too deep")

    def end(name: str) -> None:
        path.pop()

    def text(piece: str) -> None:
        if path[-1] in _WANTED:
            found[path[-1]] = found.get(path[-1], "") + piece

    def refuse(*declared: object) -> None:
        raise BadQuestion("a document type")

    parser = xml.parsers.expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(document, True)
    except (xml.parsers.expat.ExpatError, ValueError, LookupError) as error:
        # ValueError: BadQuestion is one, and an encoding that expat doesn't know raises others.
        raise BadQuestion(str(error)) from None
    address, schema = (found.get(name, "").strip() for name in _WANTED)
    return Question(address, schema)
