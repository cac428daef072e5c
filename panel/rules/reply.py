"""Every reply that the server gives, as data.

Decides code, enhanced code and public text. When a reply is given is decided in
policy.py and in the mailserver's session. RFC 5321 §4.2, RFC 3463, RFC 2034 §4.
"""

import re
from dataclasses import dataclass, replace

# What ends a line or steers a terminal, for any reader of a reply or a log.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
LONGEST_FACT = 320  # characters; an address has at most 254 octets


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply.

    `text` is public: it says what the peer can do about it and reveals nothing that
    it may not know. `enhanced` is empty only for the greeting, EHLO and 334.
    """

    code: int
    enhanced: str
    text: str

    def about(self, **facts: object) -> "Reply":
        """This reply with the placeholders of its text filled in.

        Facts may come from outside: what could end the line becomes a space, and each is cut at LONGEST_FACT.
        """
        written = {name: _UNWRITABLE.sub(" ", str(fact))[:LONGEST_FACT] for name, fact in facts.items()}
        return replace(self, text=self.text.format(**written))

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))

    @property
    def is_permanent(self) -> bool:
        return self.code >= 500


# The connection
GREETING = Reply(220, "", "{hostname} ESMTP Posthouse")
READY_FOR_TLS = Reply(220, "2.0.0", "go ahead with TLS")
BYE = Reply(221, "2.0.0", "goodbye")
TOO_SLOW = Reply(421, "4.4.2", "nothing heard for too long, closing")
SHUTTING_DOWN = Reply(421, "4.3.2", "this server is restarting, try again in a moment")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "too many errors, closing")
TOO_MANY_FAILED_LOGINS = Reply(421, "4.7.0", "too many failed logins, closing")

# Any verb
OK = Reply(250, "2.0.0", "OK")
RESET = Reply(250, "2.0.0", "transaction forgotten")
HELP = Reply(214, "2.0.0", "RFC 5321; see EHLO for what is offered")
VRFY_WITHHELD = Reply(252, "2.1.5", "addresses are checked at RCPT")
UNKNOWN_COMMAND = Reply(500, "5.5.1", "command not recognised")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "command not offered here")
LINE_TOO_LONG = Reply(500, "5.5.2", "line too long")
BARE_LINE_END_IN_COMMAND = Reply(500, "5.5.2", "a command ends with CR LF; a CR, LF or NUL alone is not understood")
SYNTAX = Reply(501, "5.5.4", "syntax: {syntax}")
NOT_ASCII = Reply(500, "5.5.2", "a command holds bytes that are not ASCII; UTF-8 needs SMTPUTF8")
BAD_SEQUENCE = Reply(503, "5.5.1", "{verb} is not possible now: {because}")
INTERNAL_ERROR = Reply(451, "4.3.0", "internal error, try again later")
UNAVAILABLE = Reply(451, "4.3.0", "temporarily unavailable, try again later")

# TLS
TLS_NOT_AVAILABLE = Reply(454, "4.7.0", "TLS is not available just now")
TLS_ALREADY = Reply(503, "5.5.1", "TLS is active already")
TLS_FIRST = Reply(530, "5.7.0", "use STARTTLS first")

# AUTH (RFC 4954 §6)
AUTH_CONTINUE = Reply(334, "", "{challenge}")
AUTHENTICATED = Reply(235, "2.7.0", "welcome, {login}")
AUTH_FAILED = Reply(535, "5.7.8", "user name or password wrong")
AUTH_SUSPENDED = Reply(535, "5.7.13", "{login} is suspended or closed; ask who looks after your mail")
AUTH_NOT_FOR_SENDING = Reply(535, "5.7.8", "this password is not for sending")
# Not 535: the password was not looked at, and a right one is never called wrong.
AUTH_LOCKED = Reply(454, "4.7.0", "too many failed logins, try again later")
AUTH_UNAVAILABLE = Reply(454, "4.7.0", "logins can't be checked just now, try again later")
AUTH_CANCELLED = Reply(501, "5.7.0", "login cancelled")
AUTH_BAD_BASE64 = Reply(501, "5.5.2", "that is not base64")
AUTH_MALFORMED = Reply(501, "5.5.2", "a PLAIN response is authorization identity, NUL, login, NUL, password")
AUTH_TOO_LONG = Reply(500, "5.5.6", "login response too long")
AUTH_UNKNOWN_MECHANISM = Reply(504, "5.5.4", "mechanism not offered; use PLAIN or LOGIN")
AUTH_NEEDS_TLS = Reply(538, "5.7.11", "use STARTTLS before AUTH")
AUTH_NOT_HERE = Reply(502, "5.7.0", "no logins on this port; send on port 587 or 465")
AUTH_ALREADY = Reply(503, "5.5.1", "logged in already")
AUTH_REQUIRED = Reply(530, "5.7.0", "log in first")

# MAIL
SENDER_OK = Reply(250, "2.1.0", "sender OK")
BAD_SENDER_ADDRESS = Reply(501, "5.1.7", "sender address not understood; write <local@domain> or <>")
PARAMETER_UNKNOWN = Reply(555, "5.5.4", "parameter {parameter} not understood")
PARAMETERS_NOT_UNDERSTOOD = Reply(501, "5.5.4", "bad parameters: {because}")
PARAMETER_BAD = Reply(501, "5.5.4", "parameter {parameter} has a bad value")
SMTPUTF8_NEEDED = Reply(553, "5.6.7", "an address outside ASCII needs SMTPUTF8")
TOO_LARGE = Reply(552, "5.3.4", "message larger than {limit} bytes")
SENDER_NOT_YOURS = Reply(550, "5.7.1", "{login} may not send as {sender}")
SENDER_SUSPENDED = Reply(550, "5.7.1", "sending is suspended for {subject}")
SENDER_CLOSED = Reply(550, "5.7.1", "{subject} is closed")
SENDER_DOMAIN_PENDING = Reply(550, "5.7.1", "the domain {domain} is not proved yet, nobody can send as it")
SENDER_DOMAIN_LAPSED = Reply(550, "5.7.1", "the proof of {domain} has lapsed, renew it to send as it")
CREDENTIAL_STOPPED = Reply(550, "5.7.1", "the {credential} may not send any more; log in with another")

# RCPT
RECIPIENT_OK = Reply(250, "2.1.5", "recipient OK")
BAD_RECIPIENT_ADDRESS = Reply(501, "5.1.3", "recipient address not understood; write <local@domain>")
NO_SUCH_MAILBOX = Reply(550, "5.1.1", "no mailbox {address} here")
NO_RELAY = Reply(550, "5.7.1", "mail for {address} is not taken here")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "too many recipients, send the rest in another message")
ALONE_PLEASE = Reply(452, "4.5.3", "send to {address} in a message of its own")
SENDER_BLOCKED = Reply(550, "5.7.1", "{address} takes no mail from this sender")
ALIAS_LOOPS = Reply(550, "5.4.6", "{address} leads back to itself")
MAILBOX_FULL = Reply(452, "4.2.2", "the mailbox {address} is full, try again later")
MAILBOX_FULL_REFUSED = Reply(552, "5.2.2", "the mailbox {address} is full")
TOO_LARGE_FOR_MAILBOX = Reply(552, "5.2.3", "the message is larger than all that the mailbox {address} may hold")
RECIPIENT_UNAVAILABLE = Reply(450, "4.2.1", "{address} can't take more mail just now, try again later")

# DATA
SEND_DATA = Reply(354, "", "end with a line that holds only a dot")
QUEUED = Reply(250, "2.0.0", "queued as {queue_id}")
NO_VALID_RECIPIENTS = Reply(554, "5.5.1", "no valid recipients")
BARE_LINE_END = Reply(554, "5.6.0", "the message holds a bare CR or LF; every line ends with CR LF")
NUL_BYTE = Reply(554, "5.6.0", "the message holds a NUL byte")
TEXT_LINE_TOO_LONG = Reply(554, "5.6.0", "a line of the message is longer than {limit} bytes")
HEADER_TOO_LARGE = Reply(554, "5.3.4", "the header is larger than {limit} bytes")
HEADER_MALFORMED = Reply(554, "5.6.0", "header not understood: {because}")
FROM_MISSING = Reply(550, "5.7.1", "the message needs exactly one From field; it has {count}")
AUTHOR_UNREADABLE = Reply(550, "5.7.1", "the addresses in {field} are not understood: {because}")
TOO_MANY_HOPS = Reply(554, "5.4.6", "the message has passed {count} servers: it goes round in circles")
OVER_LIMIT = Reply(
    450, "4.7.1", "{subject}: limit of {allowed} recipients in {window} reached, "
    "enough is free again at {free_at} UTC"
)
OVER_LIMIT_FOR_GOOD = Reply(
    550, "5.7.1", "{subject}: this message counts {asked}, the limit is {allowed} recipients in {window}; "
    "send to fewer at once"
)
NOTHING_ALLOWED = Reply(
    550, "5.7.1", "{subject}: the limit is {allowed} recipients in {window}, nothing can be sent"
)
SENDING_BUSY = Reply(450, "4.7.1", "too much is being sent from here just now, try again later")
DISK_FULL = Reply(452, "4.3.1", "no room to keep the message, try again later")

# What the queue writes where a remote server gave no reply of its own
DELIVERED_HERE = Reply(250, "2.1.5", "in the mailbox")
NULL_MX = Reply(556, "5.1.10", "{domain} takes no mail (null MX)")
NO_SUCH_DOMAIN = Reply(550, "5.1.2", "there is no domain {domain}")
NO_MAIL_SERVER = Reply(550, "5.4.4", "{domain} has no mail server")
DNS_UNAVAILABLE = Reply(451, "4.4.3", "the mail servers of {domain} can't be looked up just now")
ROUTE_LOOPS = Reply(554, "5.4.6", "the mail servers of {domain} lead back here")
PRIVATE_ADDRESS = Reply(554, "5.4.6", "the mail server of {domain} has an address in a private network")
TURNED_AWAY = Reply(451, "4.3.2", "{host} takes no mail from here now: {answer}")
UNREACHABLE = Reply(451, "4.4.1", "{host} doesn't answer")
CONNECTION_LOST = Reply(451, "4.4.2", "{host} closed the connection")
REMOTE_TIMED_OUT = Reply(451, "4.4.2", "{host} took too long")
REMOTE_NO_SENSE = Reply(451, "4.5.0", "{host} answered what is not SMTP")
TLS_FAILED = Reply(451, "4.7.5", "TLS with {host} failed")
NO_SMTPUTF8_THERE = Reply(550, "5.6.7", "{host} doesn't take addresses outside ASCII")
EXPIRED = Reply(550, "5.4.7", "could not be delivered in {days} days; last: {last}")
SENDER_REMOVED = Reply(550, "5.7.1", "not sent: its sender was closed")
DISCARDED = Reply(550, "5.7.0", "given up by the operator")
NO_STORE = Reply(451, "4.3.5", "the mail store isn't set up, try again later")
MAILBOX_GONE = Reply(550, "5.1.1", "the mailbox {address} is no longer here")
