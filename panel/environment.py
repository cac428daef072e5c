"""The settings, declared once: name, kind, default, meaning.

Both programs read the environment here and nowhere else. A bad value raises
BadSetting, whose text names the setting and says what to write instead.
`python -m panel.environment` prints deploy/env.example; a test holds the two together.
"""

import hashlib
import ipaddress
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ

BASE = Path(__file__).resolve().parent.parent
# In the data folder: where authd answers Dovecot. Its auth processes may connect, and nobody else.
DOVECOT_SOCKET = Path("run") / "dovecot-auth.sock"
SOCKET_PATH_BYTES = 100  # sun_path holds 108, its closing NUL included

# RFC 6409, RFC 8314 §7 and RFC 5804 §1.8.
STANDARD_PORTS = {"submission": 587, "submissions": 465, "imaps": 993, "pop3s": 995, "sieve": 4190}

# Each as it calls itself.
LANGUAGES = [("en", "English"), ("ja", "日本語")]

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class BadSetting(Exception):
    """A setting that can't be used; the text is a sentence for the operator."""


@dataclass(frozen=True, slots=True, order=True)
class Listen:
    """An address to listen on or to ask, port 1 to 65535 (0 in tests: any free port)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback


@dataclass(frozen=True, slots=True)
class Store:
    """Who puts mail into mailboxes: `default`, maildir (we) or lmtp, for domains that don't say; where LMTP is."""

    default: str
    lmtp: Listen | Path | None  # a TCP address, or a Unix socket


MAILDIRS = Store("maildir", None)


def _listen(text: str) -> Listen:
    host, colon, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("write ADDRESS:PORT, for example 127.0.0.1:2525 or [::1]:2525")
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{host!r} is not an IP address; write for example 127.0.0.1:{port}") from None
    return Listen("127.0.0.1" if host == "localhost" else host, int(port))


def _listens(text: str) -> tuple[Listen, ...]:
    return tuple(_listen(part) for part in text.split(",") if part.strip())


def _yes(text: str) -> bool:
    if text.strip().lower() in ("yes", "true", "1", "on"):
        return True
    if text.strip().lower() in ("no", "false", "0", "off", ""):
        return False
    raise ValueError("write yes or no")


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        text = text.strip()
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"write a whole number from {low} to {high}")
        return int(text)

    return parse


def _size(text: str) -> int:
    units = {"K": 1024, "M": 1024**2, "G": 1024**3}
    text = text.strip().upper().removesuffix("B").removesuffix("I")
    factor = units.get(text[-1:], 1)
    digits = text[:-1] if factor > 1 else text
    if not digits.isascii() or not digits.isdigit() or not 65536 <= int(digits) * factor <= 2 * 1024**3:
        raise ValueError("write a size from 64K to 2G, for example 50M")
    return int(digits) * factor


def _networks(text: str) -> tuple[IPNetwork, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"{error}; write networks such as 10.0.0.0/8,192.168.7.0/24") from None


def _optional_listen(text: str) -> Listen | None:
    return _listen(text) if text.strip() else None


def _optional_path(text: str) -> Path | None:
    return Path(text).expanduser().absolute() if text.strip() else None


def _url(text: str) -> str:
    text = text.strip().rstrip("/")
    if text:
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError("write the panel's address, for example https://mail.example.com") from None
        host = parts.hostname or ""
        plain = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
        if parts.scheme not in ("https", "http") or not host or plain != text.lower():
            raise ValueError("write https:// and the host, perhaps with :PORT, for example https://mail.example.com")
        if not _is_host(host):
            raise ValueError(f"{host!r} is no host name; write for example https://mail.example.com")
        return plain
    return ""


def _is_host(host: str) -> bool:
    if ":" in host:
        return True  # urlsplit takes only an IPv6 address in brackets
    return len(host) <= 253 and all(_is_ldh(label) for label in host.split("."))


def _optional_file(text: str) -> Path | None:
    path = _optional_path(text)
    if path is not None and not path.is_file():
        raise ValueError("write the path of a file that is there, or nothing")
    return path


def _hostname(text: str) -> str:
    name = text.strip().rstrip(".").lower()
    labels = name.split(".")
    if not name or len(name) > 253 or not all(_is_ldh(label) for label in labels):
        raise ValueError("write the full host name of this server, for example mx1.example.com")
    return name


def _is_ldh(label: str) -> bool:
    return (
        0 < len(label) <= 63
        and label.isascii()
        and label.replace("-", "").isalnum()
        and not label.startswith("-")
        and not label.endswith("-")
    )


def _optional_hostname(text: str) -> str:
    return _hostname(text) if text.strip() else ""


def _hostnames(text: str) -> tuple[str, ...]:
    return tuple(_hostname(part) for part in text.split(",") if part.strip())


def _spf_terms(text: str) -> tuple[str, ...]:
    terms = tuple(text.split())
    for term in terms:
        name, colon, value = term.partition(":")
        if name.lower() not in ("include", "a", "mx", "ip4", "ip6", "exists") or not colon or not value.isascii():
            raise ValueError(f"{term!r} is no SPF mechanism; write such as include:_spf.example.com or ip4:192.0.2.7")
    return terms


def _separator(text: str) -> str:
    if len(text) > 1 or (text and text not in "+-_=."):
        raise ValueError("write one of + - _ = . or nothing")
    return text


def _store(text: str) -> Store:
    how = "write maildir, lmtp:ADDRESS:PORT, lmtp:/path/to/socket, or maildir,lmtp:… where only some domains use LMTP"
    ways = [part.strip() for part in text.split(",")]
    places = [way.removeprefix("lmtp:") for way in ways if way.startswith("lmtp:")]
    if len(places) + ways.count("maildir") != len(ways) or len(places) > 1 or ways.count("maildir") > 1:
        raise ValueError(how)
    where: Listen | Path | None = None
    for place in places:
        # Linux: a socket's path has at most 107 bytes.
        if place.startswith("/") and len(place.encode()) > 107:
            raise ValueError("the socket's path is longer than 107 bytes; write a shorter one")
        where = Path(place) if place.startswith("/") else _listen(place)
    return Store("maildir" if ways[0] == "maildir" else "lmtp", where)


def _full_mailbox(text: str) -> bool:
    word = text.strip().lower()
    if word not in ("defer", "refuse"):
        raise ValueError("write defer or refuse")
    return word == "refuse"


def _language(text: str) -> str:
    code = text.strip().lower()
    if code not in dict(LANGUAGES):
        raise ValueError(f"write one of {', '.join(code for code, _name in LANGUAGES)}")
    return code


def _text(text: str) -> str:
    return text.strip()


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its variable, its default as one would write it, how it is read, its meaning."""

    variable: str
    default: str
    parse: Callable[[str], Any]
    meaning: str
    example: str = ""


SETTINGS: Mapping[str, Setting] = {
    "data": Setting(
        "POSTHOUSE_DATA", str(BASE / "var"), _optional_path,
        "The folder that holds all state: database, keys, certificate, spool and mail.",
        example="/var/lib/posthouse/data",
    ),
    "database_url": Setting(
        "DATABASE_URL", "", _text,
        "The database. Empty: SQLite in the data folder. PostgreSQL: postgres://user:password@host:5432/name",
        example="postgres://posthouse:secret@127.0.0.1:5432/posthouse",
    ),
    "secret_key": Setting(
        "POSTHOUSE_SECRET_KEY", "", _text,
        "The key that signs sessions. Empty: made once and kept in secret.key in the data folder.",
    ),
    "secret_key_file": Setting(
        "POSTHOUSE_SECRET_KEY_FILE", "", _optional_path,
        "A file that holds the secret key, in place of secret.key in the data folder.",
        example="/run/secrets/posthouse",
    ),
    "hostname": Setting(
        "POSTHOUSE_HOSTNAME", "", lambda text: _hostname(text or _machine_name()),
        "This server's full name: in its greeting, Received lines and links. Empty: the machine's own name.",
        example="mx1.example.com",
    ),
    "mx_names": Setting(
        "POSTHOUSE_MX_NAMES", "", _hostnames,
        "The names to which the domains' MX records lead, the preferred first, separated by commas. Empty: the host "
        "name.",
        example="mx1.example.com,mx2.example.com",
    ),
    "spf": Setting(
        "POSTHOUSE_SPF", "", _spf_terms,
        "What domains add to their SPF record so that this installation may send for them: mechanisms, separated by "
        "spaces. Empty: a: and the host name.",
        example="include:_spf.example.com",
    ),
    "postmaster": Setting(
        "POSTHOUSE_POSTMASTER", "", _text,
        "Where mail to postmaster and abuse of every hosted domain goes: an address. Empty: refused.",
        example="postmaster@example.com",
    ),
    "http": Setting(
        "POSTHOUSE_HTTP", "127.0.0.1:8000", _listen,
        "Where the panel listens. Beyond loopback only behind a proxy that speaks HTTPS.",
    ),
    "https_proxy": Setting(
        "POSTHOUSE_HTTPS_PROXY", "no", _yes,
        "yes: an HTTPS proxy stands before the panel and sets X-Forwarded-Proto and X-Forwarded-For.",
    ),
    "mta_sts": Setting(
        "POSTHOUSE_MTA_STS", "", _optional_hostname,
        "The name to which the domains' MTA-STS records lead: others then deliver to them over verified TLS only. The "
        "HTTPS proxy has a certificate for mta-sts. before each domain. Empty: no domain is told of MTA-STS.",
        example="mta-sts.example.com",
    ),
    "url": Setting(
        "POSTHOUSE_URL", "", _url,
        "Where people reach the panel: links in mail begin with it. Empty: https:// and the host name behind an HTTPS "
        "proxy, else the address that it listens on.",
        example="https://mail.example.com",
    ),
    "language": Setting(
        "POSTHOUSE_LANGUAGE", "en", _language,
        "The language of letters to people who never chose one: en or ja.",
    ),
    "staff_second_factor": Setting(
        "POSTHOUSE_STAFF_SECOND_FACTOR", "no", _yes,
        "yes: every account with a provider role must have a second factor (an app or a passkey) to use the panel. "
        "Single accounts can be made to have one in any case.",
    ),
    "leaked_passwords": Setting(
        "POSTHOUSE_LEAKED_PASSWORDS", "", _optional_file,
        "A file of leaked passwords that nobody may choose: SHA-1 digests in hexadecimal, sorted, one a line, such as "
        "Have I Been Pwned publishes. Empty: only the common ones are refused.",
        example="/srv/pwned-passwords-sha1-ordered-by-hash.txt",
    ),
    "mx": Setting(
        "POSTHOUSE_MX", "127.0.0.1:2525", _listens,
        "Where mail from other servers comes in (port 25 of the world). A list, separated by commas.",
    ),
    "submission": Setting(
        "POSTHOUSE_SUBMISSION", "127.0.0.1:2587", _listens,
        "Where mail clients send with STARTTLS (port 587 of the world). A list.",
    ),
    "submissions": Setting(
        "POSTHOUSE_SUBMISSIONS", "127.0.0.1:2465", _listens,
        "Where mail clients send with TLS from the first byte (port 465 of the world). A list.",
    ),
    "imaps": Setting(
        "POSTHOUSE_IMAPS", "127.0.0.1:2993", _listens,
        "Where mail clients read by IMAP, with TLS from the first byte (port 993 of the world). A list.",
    ),
    "pop3s": Setting(
        "POSTHOUSE_POP3S", "127.0.0.1:2995", _listens,
        "Where mail clients read by POP3, with TLS from the first byte (port 995 of the world). A list.",
    ),
    "sieve": Setting(
        "POSTHOUSE_SIEVE", "127.0.0.1:2190", _listens,
        "Where ManageSieve listens, with STARTTLS (port 4190 of the world). A list.",
    ),
    "standard_ports": Setting(
        "POSTHOUSE_STANDARD_PORTS", "no", _yes,
        "yes: clients are told 587, 465, 993, 995 and 4190, as a proxy or redirect stands before the ports above. "
        "no: they are told the first port of each list.",
    ),
    "tls_cert": Setting(
        "POSTHOUSE_TLS_CERT", "", _optional_path,
        "The certificate chain (PEM), read again when the file changes. Empty: tls/ in the data folder.",
        example="/etc/letsencrypt/live/mx1.example.com/fullchain.pem",
    ),
    "tls_key": Setting(
        "POSTHOUSE_TLS_KEY", "", _optional_path,
        "The certificate's private key (PEM).",
        example="/etc/letsencrypt/live/mx1.example.com/privkey.pem",
    ),
    "dns": Setting(
        "POSTHOUSE_DNS", "", _optional_listen,
        "The DNS resolver to ask, ADDRESS:PORT. Empty: the system's.",
        example="127.0.0.1:53",
    ),
    "outward_port": Setting(
        "POSTHOUSE_OUTWARD_PORT", "25", _number(1, 65535),
        "The port on which other mail servers are reached by MX.",
    ),
    "outward_private": Setting(
        "POSTHOUSE_OUTWARD_PRIVATE", "", _networks,
        "Private networks that an MX record may lead to. Empty: none, such mail is refused (5.4.6).",
        example="10.20.0.0/16",
    ),
    "workers": Setting(
        "POSTHOUSE_WORKERS", str(min(os.cpu_count() or 1, 16)), _number(1, 63),
        "Worker processes of the mailserver. As many as cores.",
    ),
    "message_size": Setting(
        "POSTHOUSE_MESSAGE_SIZE", "50M", _size,
        "The largest message that is taken.",
    ),
    "login_days": Setting(
        "POSTHOUSE_LOGIN_DAYS", "90", _number(30, 3650),
        "How many days the record of logins is kept. At least 30: by it a network is known as an account's own.",
    ),
    "separator": Setting(
        "POSTHOUSE_SEPARATOR", "+", _separator,
        "What parts a subaddress: with +, user+tag@ reaches user@. Empty: no subaddresses.",
    ),
    "grace_days": Setting(
        "POSTHOUSE_GRACE_DAYS", "30", _number(0, 3650),
        "Days after which a closed mailbox, domain or tenant is removed with its mail; until then it can be restored.",
    ),
    "store": Setting(
        "POSTHOUSE_STORE", "maildir", _store,
        "Who puts mail into mailboxes. maildir: we; lmtp:ADDRESS:PORT or lmtp:/path/to/socket: Dovecot, for Sieve or a"
        " cluster. maildir,lmtp:… : LMTP for domains that are set to it. LMTP has no encryption: a trusted network.",
        example="maildir",
    ),
    "finish_s": Setting(
        "POSTHOUSE_FINISH_S", "60", _number(0, 3600),
        "Seconds for which a mailserver that another has taken over from waits for its sessions. Then idle ones are"
        " ended with 421, and those at a message after it.",
    ),
    "full_refused": Setting(
        "POSTHOUSE_FULL_MAILBOX", "defer", _full_mailbox,
        "What is said at RCPT of a mailbox without room. defer: 452 4.2.2, the sender's server tries again for days."
        " refuse: 552 5.2.2, the sender is told at once.",
        example="defer",
    ),
    "node": Setting(
        "POSTHOUSE_NODE", "", _text,
        "This machine's name among several that share one database. Empty: the host name.",
    ),
    "debug": Setting(
        "POSTHOUSE_DEBUG", "no", _yes,
        "yes: Django's error pages, for developing only.",
    ),
}


@dataclass(frozen=True, slots=True)
class Environment:
    """All settings, typed. Fields are named as the keys of SETTINGS."""

    data: Path
    database_url: str
    secret_key: str
    secret_key_file: Path | None
    hostname: str
    mx_names: tuple[str, ...]
    spf: tuple[str, ...]
    postmaster: str
    http: Listen
    https_proxy: bool
    mta_sts: str
    url: str
    language: str
    staff_second_factor: bool
    leaked_passwords: Path | None
    mx: tuple[Listen, ...]
    submission: tuple[Listen, ...]
    submissions: tuple[Listen, ...]
    imaps: tuple[Listen, ...]
    pop3s: tuple[Listen, ...]
    sieve: tuple[Listen, ...]
    standard_ports: bool
    tls_cert: Path
    tls_key: Path
    dns: Listen | None
    outward_port: int
    outward_private: tuple[IPNetwork, ...]
    workers: int
    message_size: int
    login_days: int
    separator: str
    grace_days: int
    store: Store
    finish_s: int
    full_refused: bool
    node: str
    debug: bool

    def __repr__(self) -> str:
        return f"Environment(data={self.data})"

    def public_port(self, service: str) -> int | None:
        """The port on which the world reaches a service (a key of STANDARD_PORTS); None: it isn't offered."""
        listens: tuple[Listen, ...] = getattr(self, service)
        if not listens:
            return None
        return STANDARD_PORTS[service] if self.standard_ports else listens[0].port


def read(variables: Mapping[str, str] | None = None) -> Environment:
    """The environment's settings. Raises BadSetting, one sentence for the first bad value."""
    env = environ.Env()
    env.ENVIRON = os.environ if variables is None else variables
    values: dict[str, Any] = {}
    for key, setting in SETTINGS.items():
        text = env.str(setting.variable, default="") or setting.default
        if key == "separator" and setting.variable in env.ENVIRON:
            text = env.ENVIRON[setting.variable]
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            raise BadSetting(f"{setting.variable} holds a control character; write it on one line.")
        try:
            values[key] = setting.parse(text)
        except ValueError as error:
            raise BadSetting(f"{setting.variable}={text!r} can't be used: {error}.") from None
    values["node"] = values["node"] or values["hostname"]
    values["mx_names"] = values["mx_names"] or (values["hostname"],)
    values["spf"] = values["spf"] or (f"a:{values['hostname']}",)
    values["url"] = values["url"] or (
        f"https://{values['hostname']}" if values["https_proxy"] else f"http://{values['http']}"
    )
    if bool(values["tls_cert"]) != bool(values["tls_key"]):
        raise BadSetting("POSTHOUSE_TLS_CERT and POSTHOUSE_TLS_KEY belong together: set both or neither.")
    values["tls_cert"] = values["tls_cert"] or values["data"] / "tls" / "cert.pem"
    values["tls_key"] = values["tls_key"] or values["data"] / "tls" / "key.pem"
    if values["postmaster"] and "@" not in values["postmaster"]:
        raise BadSetting(
            f"POSTHOUSE_POSTMASTER={values['postmaster']!r} can't be used: write an address, for example "
            "postmaster@example.com."
        )
    if not values["http"].is_loopback and not values["https_proxy"]:
        raise BadSetting(
            f"POSTHOUSE_HTTP={values['http']} is reachable from outside without HTTPS. Put an HTTPS proxy before "
            "it and set POSTHOUSE_HTTPS_PROXY=yes, or listen on 127.0.0.1."
        )
    if values["mta_sts"] and not values["https_proxy"]:
        raise BadSetting(
            f"POSTHOUSE_MTA_STS={values['mta_sts']} can't be used without HTTPS, by which alone policies are read. Put "
            "an HTTPS proxy before the panel and set POSTHOUSE_HTTPS_PROXY=yes, or leave it empty."
        )
    return Environment(**{field.name: values[field.name] for field in fields(Environment)})


def secret_key(environment: Environment) -> str:
    """The secret key: from the environment, a file, or made once in the data folder.

    Raises BadSetting when the file can't be read, is too short, or can't be made.
    """
    if environment.secret_key:
        return _long_enough(environment.secret_key, "POSTHOUSE_SECRET_KEY")
    path = environment.secret_key_file or environment.data / "secret.key"
    try:
        if not path.exists() and environment.secret_key_file is None:
            environment.data.mkdir(parents=True, exist_ok=True)
            _create_secret(path)
        return _long_enough(path.read_text().strip(), str(path))
    except OSError as error:
        raise BadSetting(
            f"The secret key in {path} can't be read or made: {error.strerror}. "
            "Give this user the right to it, or set POSTHOUSE_DATA or POSTHOUSE_SECRET_KEY_FILE."
        ) from None


def dovecot_key(secret: str) -> str:
    """The key under which Dovecot's auth processes send passwords to authd: 64 hex digits, from the secret key."""
    return hashlib.blake2b(secret.encode(), digest_size=32, person=b"dovecot").hexdigest()


def socket_path(data: Path, name: str) -> Path:
    """A Unix socket of the mailserver's: in the run folder, or a private one when that path is too long."""
    path = data / "run" / name
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    folder = hashlib.blake2b(os.fsencode(data), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"posthouse-{os.geteuid()}-{folder}" / name


def authd_socket(data: Path) -> Path:
    """Where authd answers the workers and the panel."""
    return socket_path(data, "authd.sock")


def _create_secret(path: Path) -> None:
    # Written aside and linked, so that two programs that start at once agree on one key.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(48) + "\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _long_enough(key: str, where: str) -> str:
    if len(key) < 32:
        raise BadSetting(f"The secret key in {where} is too short: write at least 32 random characters.")
    return key


def _machine_name() -> str:
    name = socket.gethostname().rstrip(".").lower()
    return name if name and all(_is_ldh(label) for label in name.split(".")) else "localhost"


def example() -> str:
    """The text of deploy/env.example."""
    lines = [
        "# Posthouse's settings. Copy to a file that your service manager reads, and change what you need.",
        "# Written by `python -m panel.environment`. A line with # before it shows the default or an example.",
    ]
    for key, setting in SETTINGS.items():
        default = {"data": "", "workers": ""}.get(key, setting.default)
        lines += ["", f"# {setting.meaning}", f"#{setting.variable}={default or setting.example}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(example())
