"""One SMTP session: verb → facts → rules → reply.

Decides what is possible when, and gathers the facts that the rules decide by. Does not decide
who may do what (panel.rules.policy), what a command's argument or a header is (commands,
panel.rules.headers), how bytes come and go (connection), what ends a message (reader), nor how
it is kept and delivered (intake).

A verb returns its Reply; one place writes, counts and logs it. What a verb raises is 451, logged
with its traceback and never shown. RFC 5321 (SMTP), 6409 and 8314 (submission), 2920 (pipelining),
3207 (STARTTLS), 4954 (AUTH), 1870 (SIZE), 3461 (DSN), 6531 (SMTPUTF8), 2034 (enhanced codes), 9422 (LIMITS).

Kept of aiosmtpd: its class and life cycle, Session and Envelope. Replaced, with the measurements in
RECIPES and the list in STANDARDS §1: reader, dispatch by introspection, addresses, AUTH, STARTTLS, replies.
"""

import asyncio
import base64
import binascii
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast

from aiosmtpd.smtp import Envelope

from mailserver import commands, disposition, log, room, trace
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.connection import Closing, Connection, Gone, Refused
from mailserver.directory import DirectoryUnavailable
from mailserver.envelope import Client, Incoming, IncomingRecipient, Listener
from mailserver.reader import DataReader, not_kept
from panel.database.ids import IdMaker
from panel.rules import filtering, headers, policy, reply
from panel.rules.addresses import Address
from panel.rules.facts import Delivery, Login, Recipients, Resolution, Verdict
from panel.rules.reply import Reply

if TYPE_CHECKING:
    from mailserver.authd import AuthClient
    from mailserver.content import ContentStore
    from mailserver.directory import Directory
    from mailserver.intake import Intake
    from mailserver.usage import UsageClient

OUTPUT_BYTES = 8 * 1024  # replies that wait; above it they are written, and others have their turn
HANDSHAKE_S = 30.0
LOGIN_S = 30.0  # for an answer from authd
RATE_WINDOW_S = 60.0  # in which a message must come on by config.data_rate_bytes_s each second
IDLE_VERBS = 100  # NOOP, RSET, EHLO … between two messages
NAME_BYTES = 255  # of an EHLO name, RFC 5321 §4.5.3.1.2

_LOGIN_CHALLENGES = ("Username:", "Password:")


@dataclass(frozen=True, slots=True, eq=False)
class Services:
    """What a session asks. `sessions` holds those that are open, for a stop."""

    config: Config
    directory: "Directory"
    auth: "AuthClient"
    intake: "Intake"
    ids: IdMaker
    clock: Clock
    tls: ssl.SSLContext | None
    content: "ContentStore"
    usage: "UsageClient"
    sessions: "set[Session]" = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A recipient that RCPT took."""

    resolution: Resolution
    notify: str
    orcpt: str

    def incoming(self, resolution: Resolution) -> IncomingRecipient:
        """As the rules of its mailboxes leave it: `resolution`."""
        if resolution.verdict is Verdict.BLOCKED:
            return IncomingRecipient(
                resolution.asked, (), resolution.tenant_id, self.notify, self.orcpt,
                reply.SENDER_BLOCKED.about(address=resolution.asked),
            )
        elsewhere = (Delivery(resolution.asked, None),)
        return IncomingRecipient(
            original=resolution.asked, deliveries=resolution.deliveries or elsewhere,
            tenant_id=resolution.tenant_id, notify=self.notify, orcpt=self.orcpt,
        )


class Transaction(Envelope):
    """From MAIL to the end of DATA."""

    def __init__(
        self, reverse_path: Address | None, parameters: dict[str, str], version: int, login: Login | None
    ) -> None:
        self.reverse_path = reverse_path  # None: the null path
        self.smtp_utf8 = "SMTPUTF8" in parameters
        self.body_type = parameters.get("BODY", "").upper()
        self.ret = parameters.get("RET", "").upper()
        self.envid = parameters.get("ENVID", "")
        self.version = version  # of the directory, before it was asked
        self.login = login
        self.size = commands.declared_size(parameters)
        self.recipients: dict[Address, _Accepted] = {}  # by canonical address; elsewhere as it was written
        self.so_far = Recipients()


Verb = Callable[["Session", bytes], Awaitable[Reply | None]]  # None: it has answered itself


class Session(Connection):
    """A session on one of our ports."""

    envelope: Transaction | None  # None: no transaction

    def __init__(self, services: Services, kind: Listener) -> None:
        super().__init__()
        self.services = services
        self.config = services.config
        self.kind = kind
        self._draining = False
        self._errors = self._idle_verbs = self._failed_logins = 0
        self._last_refusal: tuple[bytes, Reply] | None = None

    # The connection's life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.services.sessions.add(self)
        super().connection_made(transport)

    def ended(self) -> None:
        self.services.sessions.discard(self)

    def drain(self) -> None:
        """End after the transaction under way; at once if there is none."""
        self._draining = True
        self._wake()

    def last_word(self, answer: Reply) -> None:
        self._answer("-", answer)

    async def _next_line(self, *, response: bool = False) -> bytes:
        """The next command, or response to a 334. Raises Refused for a line over its limit.

        Its deadline counts for all of it: bytes that trickle in don't put it off.
        """
        deadline = None
        while True:
            # Looked at each time: the first bytes of a line say what it is.
            if response or (self.kind is not Listener.MX and self._buffer[:5].upper() == b"AUTH "):
                line = self._take_line(self.config.auth_line_bytes, reply.AUTH_TOO_LONG)
            else:
                line = self._take_line(self.config.line_bytes, reply.LINE_TOO_LONG)
            if line is not None:
                return line
            if self._replies:
                await self._flush()
                continue
            if self._draining and self.envelope is None:
                raise Closing(reply.SHUTTING_DOWN)
            if self._eof:
                raise Gone
            deadline = deadline or self.loop.time() + self.config.idle_timeout_s
            await self._sleep(deadline)

    # Command by command

    async def converse(self) -> None:
        self._say(reply.GREETING.about(hostname=self.config.hostname))
        while True:
            if self._draining and self.envelope is None:
                raise Closing(reply.SHUTTING_DOWN)
            if self._replies_bytes > OUTPUT_BYTES:
                await self._flush()
                await asyncio.sleep(0)
            try:
                line = await self._next_line()
            except Refused as refused:
                self._answer("-", refused.reply)
                self._enough()
                continue
            word, _, argument = line.partition(b" ")
            name = word.upper().decode("ascii", "replace")
            verb = self._verbs.get(name)
            answer = await self._obey(name, verb, line, argument.strip(b" "))
            if answer is not None:
                self._answer(name if verb else "-", answer)
            if answer is reply.BYE:
                raise Gone
            self._enough()

    async def _obey(self, name: str, verb: Verb | None, line: bytes, argument: bytes) -> Reply | None:
        """The verb's reply; whatever it raises becomes one, but what ends the session."""
        if b"\n" in line or b"\r" in line or b"\0" in line:
            # Not two commands, whatever the peer or one behind it may think (CVE-2023-51764 and kin).
            return reply.BARE_LINE_END_IN_COMMAND
        if verb is None:
            return reply.UNKNOWN_COMMAND
        if not argument.isascii() and name not in ("MAIL", "RCPT"):
            return reply.NOT_ASCII
        self._idle_verbs += name in self._idle
        try:
            return await verb(self, argument)
        except Refused as refused:
            return refused.reply
        except (Closing, Gone):
            raise
        except DirectoryUnavailable:
            return reply.UNAVAILABLE
        except Exception:
            log.fault("a verb failed", verb=name, ip=self._ip)
            return reply.INTERNAL_ERROR

    def _answer(self, verb: str, answer: Reply) -> None:
        """The one place that writes, counts and logs a reply."""
        self._say(answer)
        if answer.code >= 400:
            self._errors += answer.is_permanent or answer is reply.INTERNAL_ERROR
            log.refused(verb, self._ip, answer, login=self._login_name)

    def _enough(self) -> None:
        """Raises Closing when there were too many failures."""
        if self._failed_logins >= self.config.failed_logins:
            raise Closing(reply.TOO_MANY_FAILED_LOGINS)
        if self._errors >= self.config.errors or self._idle_verbs > IDLE_VERBS:
            raise Closing(reply.TOO_MANY_ERRORS)

    @property
    def login(self) -> Login | None:
        """Who logged in, as the directory said then."""
        return cast(Login | None, self.session.auth_data) if self.session.authenticated else None

    @property
    def _login_name(self) -> str:
        return self.login.name if self.login else ""

    # Greeting

    async def ehlo(self, argument: bytes) -> Reply:
        self._greeted(argument, "EHLO", extended=True)
        return Reply(250, "", "\n".join((self.config.hostname, *self._offers())))

    async def helo(self, argument: bytes) -> Reply:
        self._greeted(argument, "HELO", extended=False)
        return Reply(250, "", self.config.hostname)

    def _greeted(self, argument: bytes, verb: str, *, extended: bool) -> None:
        """Any name is taken: mail clients send bare host names and private addresses (STANDARDS §5)."""
        name = argument.decode("ascii")
        if not name or " " in name or not name.isprintable() or len(name) > NAME_BYTES:
            raise Refused(reply.SYNTAX.about(syntax=f"{verb} your-host-name"))
        self.envelope = None
        self.session.host_name = name
        self.session.extended_smtp = extended

    def _offers(self) -> list[str]:
        """What EHLO advertises: only what is complete."""
        offers = ["PIPELINING", f"SIZE {self.config.message_size}", "8BITMIME", "SMTPUTF8", "DSN"]
        offers += ["ENHANCEDSTATUSCODES", f"LIMITS RCPTMAX={self.config.recipients}"]
        if not self._tls and self.services.tls is not None:
            offers.append("STARTTLS")
        if self._tls and self.kind is not Listener.MX:
            offers.append("AUTH PLAIN LOGIN")
        return offers

    def _need_greeting(self, verb: str) -> None:
        if not self.session.host_name:
            raise Refused(reply.BAD_SEQUENCE.about(verb=verb, because="say EHLO first"))

    # Small verbs

    async def noop(self, argument: bytes) -> Reply:
        return reply.OK

    async def rset(self, argument: bytes) -> Reply:
        commands.alone(argument, "RSET")
        self.envelope = None
        return reply.RESET

    async def quit(self, argument: bytes) -> Reply:
        commands.alone(argument, "QUIT")
        return reply.BYE

    async def help(self, argument: bytes) -> Reply:
        return reply.HELP

    async def vrfy(self, argument: bytes) -> Reply:
        if not argument:
            raise Refused(reply.SYNTAX.about(syntax="VRFY address"))
        return reply.VRFY_WITHHELD

    async def expn(self, argument: bytes) -> Reply:
        return reply.NOT_IMPLEMENTED

    # TLS

    async def starttls(self, argument: bytes) -> Reply | None:
        """220, then an empty buffer: nothing pipelined past it survives (CVE-2024-34083, RFC 3207 §4.2)."""
        commands.alone(argument, "STARTTLS")
        if self._tls:
            return reply.TLS_ALREADY
        if self.services.tls is None or self.transport is None:
            return reply.TLS_NOT_AVAILABLE
        # Or a fast ClientHello would be taken for commands.
        self._reading_paused = False  # not by us: nothing but start_tls resumes it
        self.transport.pause_reading()
        self._say(reply.READY_FOR_TLS)
        await self._flush()
        self._buffer.clear()
        plain = self.transport
        try:
            secured = await self.loop.start_tls(
                plain, self, self.services.tls, server_side=True, ssl_handshake_timeout=HANDSHAKE_S
            )
        except OSError as error:  # ssl.SSLError and TimeoutError are
            log.refused("STARTTLS", self._ip, "the handshake failed", because=error)
            self._lost = True
            plain.abort()
            raise Gone from None
        if secured is None or self._lost:
            raise Gone
        self.transport = secured
        self._begin()
        return None

    # AUTH

    async def auth(self, argument: bytes) -> Reply:
        if self.kind is Listener.MX:
            return reply.AUTH_NOT_HERE
        self._need_greeting("AUTH")
        if not self._tls:
            return reply.AUTH_NEEDS_TLS
        if self.session.authenticated:
            return reply.AUTH_ALREADY
        if self.envelope is not None:
            return reply.BAD_SEQUENCE.about(verb="AUTH", because="a transaction is under way")
        mechanism, _, initial = argument.partition(b" ")
        first = initial if initial else None
        if not mechanism or (first is not None and b" " in first):
            return reply.SYNTAX.about(syntax="AUTH PLAIN or AUTH LOGIN, with or without a first response")
        match mechanism.upper():
            case b"PLAIN":
                return await self._log_in(*commands.plain_credentials(await self._response("", first)))
            case b"LOGIN":
                login = await self._response(_LOGIN_CHALLENGES[0], first)
                password = await self._response(_LOGIN_CHALLENGES[1], None)
                return await self._log_in(commands.text(login), commands.text(password))
        return reply.AUTH_UNKNOWN_MECHANISM

    async def _response(self, challenge: str, given: bytes | None) -> bytes:
        """What the client answers, decoded; `given` is the initial response, where "=" is an empty one."""
        if given == b"=":
            return b""
        if given is None:
            self._say(reply.AUTH_CONTINUE.about(challenge=base64.b64encode(challenge.encode()).decode()))
            given = await self._next_line(response=True)
        if given == b"*":
            raise Refused(reply.AUTH_CANCELLED)
        try:
            return base64.b64decode(given, validate=True)
        except binascii.Error:
            raise Refused(reply.AUTH_BAD_BASE64) from None

    async def _log_in(self, login: str, password: str) -> Reply:
        """Ask authd. A failure counts; a second mechanism with the same password not (STANDARDS §5)."""
        if not login or not password:
            self._failed_logins += 1
            log.login_failed(login, self._ip, "no login or password, or on behalf of another")
            return reply.AUTH_FAILED
        asked = hashlib.sha256(f"{login}\0{password}".encode()).digest()
        if self._last_refusal is not None and self._last_refusal[0] == asked:
            again = self._last_refusal[1]
            self._last_refusal = None
            return again
        await self._flush()
        try:
            async with asyncio.timeout(LOGIN_S):
                answer = await self.services.auth.ask(login, password, self._ip)
        except OSError as error:  # TimeoutError is one
            log.warning("authd doesn't answer", because=error or "too late")
            return reply.AUTH_UNAVAILABLE
        if answer.verdict == "ok" and answer.credential_id is not None:
            return await self._logged_in(answer.credential_id, answer.fingerprint)
        refused = {
            "wrong": reply.AUTH_FAILED,
            "suspended": reply.AUTH_SUSPENDED.about(login=answer.login or login),
            "scope": reply.AUTH_NOT_FOR_SENDING,
            "locked": reply.AUTH_LOCKED,
        }.get(answer.verdict, reply.AUTH_UNAVAILABLE)
        if refused is not reply.AUTH_UNAVAILABLE:
            self._failed_logins += 1
            self._last_refusal = (asked, refused)
        return refused

    async def _logged_in(self, credential_id: int, fingerprint: str) -> Reply:
        try:
            login = await self.services.directory.login(credential_id, fingerprint)
        except DirectoryUnavailable:
            return reply.AUTH_UNAVAILABLE
        if login is None or login.fingerprint != fingerprint:
            # It went or was changed between authd's look and ours. Never 535 for a right password.
            return reply.AUTH_UNAVAILABLE
        self.session.authenticated = True
        self.session.auth_data = cast(Any, login)
        log.logged_in(login.name, self._ip, login.credential)
        return reply.AUTHENTICATED.about(login=login.name)

    async def _fresh_login(self) -> Login | None:
        """The login as the directory knows it now; None on the MX port. Raises Refused."""
        if self.login is None:
            return None
        began = self.login
        login = await self.services.directory.login(began.credential_id, began.fingerprint)
        if login is None or policy.login_ended(began, login, ip=self._ip):
            # Of a login that is gone nothing more is known: revoked, or its mailbox deleted.
            raise Refused(reply.CREDENTIAL_STOPPED.about(credential=began.credential))
        self.session.auth_data = cast(Any, login)
        return login

    # The transaction

    async def mail(self, argument: bytes) -> Reply:
        self._need_greeting("MAIL")
        if self.kind is not Listener.MX:
            if not self._tls:
                return reply.TLS_FIRST
            if not self.session.authenticated:
                return reply.AUTH_REQUIRED
        if self.envelope is not None:
            return reply.BAD_SEQUENCE.about(verb="MAIL", because="a transaction is under way, RSET ends it")
        path = commands.after(argument, b"FROM:", "MAIL FROM:<local@domain> or MAIL FROM:<>")
        reverse_path, parameters = commands.parse_mail(path)
        commands.check_mail(parameters, self.config.message_size)
        version = self.services.directory.version  # before the look-up, not after
        login = await self._fresh_login()
        refused = policy.sender_refused(login, reverse_path, ()) if login else None
        if refused:
            return refused
        self.envelope = Transaction(reverse_path, parameters, version, login)
        return reply.SENDER_OK

    async def rcpt(self, argument: bytes) -> Reply:
        transaction = self.envelope
        if transaction is None:
            return reply.BAD_SEQUENCE.about(verb="RCPT", because="MAIL comes first")
        path = commands.after(argument, b"TO:", "RCPT TO:<local@domain>")
        address, parameters = commands.parse_rcpt(path, transaction.smtp_utf8)
        full = len(transaction.recipients) >= self.config.recipients
        if full and transaction.recipients.keys().isdisjoint((address, address.canonical)):
            # The rule says so as well; here it costs no look-up, of which each takes milliseconds.
            return reply.TOO_MANY_RECIPIENTS
        resolution = await self._resolve(address, transaction)
        # Elsewhere upper and lower case may be two people (RFC 5321 §2.4).
        once = address if resolution.verdict is Verdict.ELSEWHERE else address.canonical
        if once in transaction.recipients:
            return reply.RECIPIENT_OK  # accepted once
        refused = policy.recipient_refused(
            resolution, login=transaction.login, so_far=transaction.so_far, most=self.config.recipients
        )
        refused = refused or await room.refused_at_rcpt(
            self.services.usage, resolution, transaction.size, for_good=self.config.full_refused
        )
        if refused:
            return refused
        transaction.so_far = transaction.so_far.plus(resolution)
        transaction.recipients[once] = _Accepted(
            resolution, parameters.get("NOTIFY", "").upper(), parameters.get("ORCPT", "")
        )
        return reply.RECIPIENT_OK

    async def _resolve(self, address: Address, transaction: Transaction) -> Resolution:
        """Where mail for the address goes, as far as the envelope's sender decides that."""
        resolution = await self.services.directory.resolve(address)
        return filtering.at_rcpt(resolution, transaction.reverse_path) if resolution.steps else resolution

    # The message

    async def data(self, argument: bytes) -> Reply:
        commands.alone(argument, "DATA")
        transaction = self.envelope
        if transaction is None:
            return reply.BAD_SEQUENCE.about(verb="DATA", because="MAIL and RCPT come first")
        if not transaction.recipients:
            return reply.NO_VALID_RECIPIENTS
        self._say(reply.SEND_DATA)
        reader = DataReader(self.config, self.services.content.new_spill)
        try:
            await self._receive(reader)
            return reader.problem or await self._submit(transaction, reader)
        finally:
            reader.abandon()
            self.envelope = None

    async def _receive(self, reader: DataReader) -> None:
        """Feed the reader until the message's end. Each read has a deadline, each minute a least of bytes."""
        config = self.config
        window_ends = self.loop.time() + RATE_WINDOW_S
        wanted = int(config.data_rate_bytes_s * RATE_WINDOW_S)
        came = 0
        heard = self.loop.time()
        while True:
            if self._buffer:
                data, self._buffer = self._buffer, bytearray()
                heard = self.loop.time()
                came += len(data)
                try:
                    rest = reader.feed(data)
                except Exception:
                    # The message's end is not known any more: its rest must not run as commands.
                    log.fault("the reader failed", ip=self._ip)
                    raise Closing(reply.INTERNAL_ERROR) from None
                if rest is not None:
                    self._buffer += rest
                    return
                if reader.hopeless:
                    raise Closing(reader.problem or reply.INTERNAL_ERROR)
            elif self._replies:
                await self._flush()
            elif self._eof:
                raise Gone
            elif self.loop.time() >= window_ends:
                if came < wanted:
                    raise Closing(reply.TOO_SLOW)
                window_ends, came = self.loop.time() + RATE_WINDOW_S, 0
            else:
                try:
                    await self._sleep(min(heard + config.data_timeout_s, window_ends))
                except Closing:
                    if self.loop.time() >= heard + config.data_timeout_s:
                        raise

    async def _submit(self, transaction: Transaction, reader: DataReader) -> Reply:
        """A whole message: the last checks, our headers above it, and over to intake."""
        if self.services.directory.version != transaction.version:
            await self._look_again(transaction)
        login = transaction.login
        try:
            fields = headers.split(reader.header)
            authors = headers.authors(fields)
        except headers.BadHeader as error:
            if login is not None:
                return _malformed(error)
            # What mail from elsewhere says of its authors proves nothing; marks of loops, lists and junk still count.
            fields, authors = headers.legible(reader.header), headers.Authors(0, (), "")
        refused = policy.message_refused(
            from_count=authors.from_count, received_count=trace.received_count(reader.header),
            most_hops=self.config.hops, login=login,
        )
        if refused is None and login is not None:
            refused = policy.sender_refused(login, transaction.reverse_path, authors.addresses)
        if refused is not None:
            return refused
        try:
            return await self._hand_over(transaction, reader, fields, authors)
        except OSError as error:
            return not_kept(error)

    async def _look_again(self, transaction: Transaction) -> None:
        """The directory moved since MAIL: who may no more send or receive is refused now. Raises Refused."""
        login = await self._fresh_login()
        refused = policy.sender_refused(login, transaction.reverse_path, ()) if login else None
        if refused:
            raise Refused(refused)
        found: dict[Address, _Accepted] = {}
        so_far = Recipients()
        for once, before in transaction.recipients.items():
            resolution = await self._resolve(before.resolution.asked, transaction)
            refused = policy.recipient_refused(
                resolution, login=login, so_far=so_far, most=self.config.recipients
            )
            if refused:
                # One reply for all: a 550 would take the others' mail away too. At the next try RCPT tells.
                raise Refused(refused if len(transaction.recipients) == 1 else reply.UNAVAILABLE)
            so_far = so_far.plus(resolution)
            found[once] = _Accepted(resolution, before.notify, before.orcpt)
        transaction.login, transaction.recipients = login, found

    async def _hand_over(
        self, transaction: Transaction, reader: DataReader, fields: list[headers.Field],
        authors: headers.Authors,
    ) -> Reply:
        login, accepted = transaction.login, tuple(transaction.recipients.values())
        now = self.services.clock.now()
        number = self.services.ids.next()
        client = Client(
            ip=self._ip, port=self._port, name=self.session.host_name or "", tls=self._tls,
            esmtp=self.session.extended_smtp,
        )
        only = accepted[0].resolution.asked if len(accepted) == 1 else None
        prefix = trace.received(
            client, by=self.config.hostname, message_id=number, at=now, authenticated=login is not None,
            smtputf8=transaction.smtp_utf8, recipient=only,
        )
        message_id = headers.first(fields, b"message-id")
        if login is not None:
            # RFC 6409 §8: added when missing, never changed.
            if not any(each.is_named(b"date") for each in fields):
                prefix += trace.date_header(now)
            if not any(each.is_named(b"message-id") for each in fields):
                message_id = trace.message_id(number, login.domain)
                prefix += trace.message_id_header(message_id)
        elif not trace.begins_with_field(reader.header):
            # No header at all: its first line must not become a part of ours.
            prefix += b"\r\n" if reader.header else b""
        disposed = await disposition.dispose(
            [each.resolution for each in accepted],
            disposition.Arrived(
                number, now, transaction.reverse_path, authors.from_addresses, fields, message_id
            ),
            directory=self.services.directory, next_ids=self.services.ids, separator=self.config.separator,
        )
        recipients = tuple(
            each.incoming(resolution) for each, resolution in zip(accepted, disposed.resolutions, strict=True)
        )
        if recipients[0].refusal and all(each.refusal for each in recipients):
            return recipients[0].refusal
        taken = await room.take(
            self.services.usage, disposed.resolutions, transaction.reverse_path,
            len(prefix) + reader.size, for_good=self.config.full_refused,
        )
        if taken.refused:
            return taken.refused
        incoming = Incoming(
            id=number, received_at=now, direction="inbound" if login is None else "submission", login=login,
            client=client, reverse_path=transaction.reverse_path, recipients=recipients,
            prefix=disposed.prefix + prefix,
            subject=headers.first(fields, b"subject"), message_id=message_id, header_from=authors.from_text,
            smtputf8=transaction.smtp_utf8, body_type=transaction.body_type, ret=transaction.ret,
            envid=transaction.envid, charges=policy.charges(login, disposed.resolutions), answers=disposed.answers,
            full=taken.full,
            body=reader.body(),  # last: from here on its file is ours
        )
        # Nothing cancels this: a peer that has gone wakes only what waits for it.
        answer = await self.services.intake.take(incoming)
        if answer.code == 250:
            self._errors = self._idle_verbs = 0
        else:
            taken.give_back()
        return answer

    # One table for all sessions: looked up, never searched for.
    _verbs: ClassVar[dict[str, Verb]] = {
        "EHLO": ehlo, "HELO": helo, "MAIL": mail, "RCPT": rcpt, "DATA": data,
        "RSET": rset, "NOOP": noop, "QUIT": quit, "HELP": help, "VRFY": vrfy,
        "EXPN": expn, "AUTH": auth, "STARTTLS": starttls,
    }
    _idle: ClassVar[frozenset[str]] = frozenset({"EHLO", "HELO", "RSET", "NOOP", "HELP", "VRFY", "EXPN"})


def _malformed(error: headers.BadHeader) -> Reply:
    if error.field:
        return reply.AUTHOR_UNREADABLE.about(field=error.field, because=error)
    return reply.HEADER_MALFORMED.about(because=error)
