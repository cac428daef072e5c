"""What stands behind a verb: paths, parameters, and the responses of AUTH.

Decides the grammar; bytes in, values out, and Refused for what isn't one. RFC 5321 §4.1.2, RFC 1870,
RFC 3461 §4, RFC 4616, RFC 6531 §3.4.
"""

from collections.abc import Mapping

from mailserver.connection import Refused
from panel.rules import addresses, reply
from panel.rules.addresses import Address, BadAddress

ENVID_BYTES, ORCPT_BYTES = 100, 500  # RFC 3461 §4.4, §4.2


def alone(argument: bytes, verb: str) -> None:
    """Refuse what stands behind a verb that takes nothing."""
    if argument:
        raise Refused(reply.SYNTAX.about(syntax=f"{verb} stands alone"))


def after(argument: bytes, keyword: bytes, syntax: str) -> bytes:
    """What stands behind FROM: or TO:, in either case. Raises Refused with `syntax`."""
    if argument[: len(keyword)].upper() != keyword:
        raise Refused(reply.SYNTAX.about(syntax=syntax))
    return argument[len(keyword) :]


def parse_mail(path: bytes) -> tuple[Address | None, dict[str, str]]:
    """The reverse-path (None: null) and its parameters, not yet checked. Raises Refused.

    SMTPUTF8 is one of them, so whether the path may be UTF-8 is known only behind it.
    """
    try:
        address, rest = addresses.parse_path(path, smtputf8=True, null_allowed=True)
    except BadAddress:
        raise Refused(reply.BAD_SENDER_ADDRESS) from None
    parameters = _parse_parameters(rest)
    if not path.isascii() and "SMTPUTF8" not in parameters:
        raise Refused(reply.SMTPUTF8_NEEDED)
    return address, parameters


def declared_size(parameters: Mapping[str, str]) -> int:
    """The bytes that the message will have, by SIZE of MAIL (RFC 1870 §6); 0 when that isn't said."""
    text = parameters.get("SIZE", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def check_mail(parameters: dict[str, str], most_bytes: int) -> None:
    """Refuse a parameter of MAIL that is unknown, bad, or a SIZE over the limit."""
    for keyword, value in parameters.items():
        good = True
        match keyword:
            case "SIZE":
                good = value.isascii() and value.isdigit() and len(value) <= 20  # RFC 1870 §4
                if good and int(value) > most_bytes:
                    raise Refused(reply.TOO_LARGE.about(limit=most_bytes))
            case "BODY":
                good = value.upper() in ("7BIT", "8BITMIME")
            case "SMTPUTF8":
                good = not value
            case "RET":
                good = value.upper() in ("FULL", "HDRS")
            case "ENVID":
                good = 0 < len(value) <= ENVID_BYTES and _is_xtext(value)
            case "AUTH":
                good = bool(value)  # accepted and ignored: nobody here is trusted to vouch for another
            case _:
                raise Refused(reply.PARAMETER_UNKNOWN.about(parameter=keyword[:40]))
        if not good:
            raise Refused(reply.PARAMETER_BAD.about(parameter=keyword))


def parse_rcpt(path: bytes, smtputf8: bool) -> tuple[Address, dict[str, str]]:
    """The recipient and its parameters, checked: NOTIFY and ORCPT (RFC 3461 §4). Raises Refused."""
    try:
        address, rest = addresses.parse_path(path, smtputf8=smtputf8, postmaster_allowed=True)
    except addresses.NeedsSmtputf8:
        raise Refused(reply.SMTPUTF8_NEEDED) from None
    except BadAddress:
        raise Refused(reply.BAD_RECIPIENT_ADDRESS) from None
    assert address is not None  # the null path is not allowed here
    parameters = _parse_parameters(rest, smtputf8=smtputf8)
    for keyword, value in parameters.items():
        match keyword:
            case "NOTIFY":
                words = value.upper().split(",")
                good = words == ["NEVER"] or (
                    set(words) <= {"SUCCESS", "FAILURE", "DELAY"} and len(set(words)) == len(words)
                )
            case "ORCPT":
                kind, semicolon, original = value.partition(";")
                good = bool(semicolon and original) and kind.isascii() and kind.replace("-", "").isalnum()
                good = good and len(value) <= ORCPT_BYTES
                good = good and (kind.lower() == "utf-8" or _is_xtext(original))  # RFC 6533 §3
            case _:
                raise Refused(reply.PARAMETER_UNKNOWN.about(parameter=keyword[:40]))
        if not good:
            raise Refused(reply.PARAMETER_BAD.about(parameter=keyword))
    return address, parameters


def _parse_parameters(raw: bytes, *, smtputf8: bool = True) -> dict[str, str]:
    try:
        return addresses.parse_parameters(raw, smtputf8=smtputf8)
    except BadAddress as error:
        raise Refused(reply.PARAMETERS_NOT_UNDERSTOOD.about(because=error)) from None


def _is_xtext(value: str) -> bool:
    try:
        addresses.decode_xtext(value)
    except BadAddress:
        return False
    return True


def plain_credentials(response: bytes) -> tuple[str, str]:
    """Login and password of a PLAIN response, RFC 4616 §2. Raises Refused."""
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise Refused(reply.AUTH_MALFORMED)
    authzid, login, password = map(text, parts)
    if parts[0] and authzid.lower() != login.lower():
        # Nobody acts for another here; mutt, git send-email and others send the login once more.
        return "", ""
    return login, password


def text(octets: bytes) -> str:
    """UTF-8, as RFC 4616 has it; what is not can't be anybody's login or password."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return ""
