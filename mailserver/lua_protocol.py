"""What Dovecot 2.4 asks by our Lua script: a line of fields with tabs between them, and a line answered.

Decides what a line asks for and how an answer reads; no I/O here. The script is
panel/operations/dovecot/authd.lua. Fields are escaped as in the dict protocol that Dovecot
2.3 speaks (dict_protocol.py), on the same socket:

    P\\timap\\t203.0.113.9\\tUSER\\tPASSWORD     may this password log in?
    U\\tUSER                                 where is this mailbox?

The answers: `O` and fields (name=value), `N` for no, `F` for "ask again later". The password
isn't sealed as in the dict protocol: the script logs nothing of a question.
"""

from collections.abc import Mapping

from mailserver.dict_protocol import LINE_BYTES, BadLine, PasswordLookup, UserLookup, client_address, escape, text

QUESTIONS = (b"P\t", b"U\t")


def parse(line: bytes) -> PasswordLookup | UserLookup:
    """What a line asks, without its newline. Bytes that are no UTF-8 become lone surrogates. Raises BadLine."""
    if len(line) > LINE_BYTES:
        raise BadLine("longer than any login")
    match [text(field) for field in line.split(b"\t")]:
        case ["P", protocol, ip, login, password]:
            return PasswordLookup(protocol, client_address(ip), login, password)
        case ["U", login]:
            return UserLookup(login)
    raise BadLine("neither a password nor a user")


def found(facts: Mapping[str, str]) -> bytes:
    """The answer with these fields."""
    return b"\t".join((b"O", *(escape(f"{name}={value}".encode()) for name, value in facts.items()))) + b"\n"


# The field that tells rules/filtering.sieve_for_junk that the mailbox wants its junk in Junk.
JUNK: Mapping[str, str] = {"sieve_environment/junk": "yes"}


def quota(size_bytes: int) -> Mapping[str, str]:
    """The field that says how much a mailbox may hold."""
    return {"quota_storage_size": f"{size_bytes}B"}


def failed(because: str) -> bytes:
    """The answer that makes Dovecot say "temporary failure"."""
    return b"F\t" + escape(because.encode()) + b"\n"
