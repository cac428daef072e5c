"""Mail addresses: the one place that parses, normalises and writes them.

RFC 5321 §4.1.2 (paths), RFC 6531 §3.3 (UTF-8), RFC 5890 (A-labels), RFC 5233 (subaddresses).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A mail address. `local_part` is unquoted; `domain` is A-labels in lower case, or a literal in brackets."""

    local_part: str
    domain: str

    @property
    def canonical(self) -> "Address":
        """The form under which it is stored and compared: local part in NFC, case folded."""
        raise NotImplementedError

    def without_subaddress(self, separator: str) -> "Address":
        """user@ for user+tag@; itself when there is no separator, or nothing before it."""
        raise NotImplementedError
