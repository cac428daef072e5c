"""Who may log in, send and receive, and who pays: facts in, a reply or nothing out.

Decides which reply is given; the texts are in reply.py, the facts are gathered by the
mailserver's directory and session. RFC 5321 §3.6 (relaying), RFC 6409 §6.1 (senders),
RFC 4954 §6 (logins), CERT VU#244112.

On port 25 nobody is refused for the sender: a forwarding service or mailing list elsewhere
brings mail that our own people wrote back to us with its envelope as it was. What an
open relay would do with a sender of ours is refused at RCPT, whatever the sender
(`recipient_refused`); whether such mail is genuine is for SPF and DMARC to say.
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime

from panel.rules import reply
from panel.rules.addresses import Address
from panel.rules.facts import Delivery, Login, Proof, Recipients, Resolution, Verdict
from panel.rules.limits import Kind, OverLimit, Subject
from panel.rules.reply import Reply
from panel.rules.status import Status

SENDING = "submission"  # the scope


def login_refused(login: Login, *, scope: str, ip: str, now: datetime) -> Reply | None:
    """Whether a login whose password was right may go on, for `scope` and from `ip`.

    What could tell a thief that the password is right (frozen, expired, from elsewhere, a main
    password beside a second factor) reads like a wrong password; only then is the owner told what is the matter.
    """
    expired = login.expires_at is not None and login.expires_at <= now
    if not login.usable or expired or not _is_from_networks(login, ip):
        return reply.AUTH_FAILED
    if not login.status.may_log_in:
        return reply.AUTH_SUSPENDED.about(login=login.name)
    if scope not in login.scopes:
        return reply.AUTH_NOT_FOR_SENDING
    return None


def login_ended(began: Login, now: Login, *, ip: str) -> bool:
    """Whether the password that a session began with opens nothing any more, or not from there.

    A thief's open connection must not outlive the change of the stolen password.
    """
    return began.fingerprint != now.fingerprint or not _is_from_networks(now, ip)


def _is_from_networks(login: Login, ip: str) -> bool:
    if not login.networks:
        return True
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped  # as a socket for both families names an IPv4 client
    return any(address in network for network in login.networks)


def sender_refused(login: Login, reverse_path: Address | None, authors: Sequence[Address]) -> Reply | None:
    """Whether `login` may send now, with this envelope sender and these header authors.

    Asked at MAIL (no authors yet) and again at the end of DATA. The null reverse path
    (None) is allowed: read receipts have it. Every author is checked as well as the
    envelope, or a tenant could write as another one while the receiver's DMARC check
    passes (CERT VU#244112; RFC 6409 §6.1).
    """
    if login.status is Status.CLOSED:
        return reply.SENDER_CLOSED.about(subject=login.suspended)
    if not login.status.may_send:
        return reply.SENDER_SUSPENDED.about(subject=login.suspended)
    if not login.usable or SENDING not in login.scopes:
        return reply.CREDENTIAL_STOPPED.about(credential=login.credential)
    if login.proof is Proof.PENDING:
        return reply.SENDER_DOMAIN_PENDING.about(domain=login.domain)
    if login.proof is Proof.LAPSED:
        return reply.SENDER_DOMAIN_LAPSED.about(domain=login.domain)
    for sender in (*((reverse_path,) if reverse_path else ()), *authors):
        if sender not in login.may_send_as:
            return reply.SENDER_NOT_YOURS.about(login=login.name, sender=sender)
    return None


def recipient_refused(
    resolution: Resolution, *, login: Login | None, so_far: Recipients, most: int
) -> Reply | None:
    """Whether a transaction that has `so_far` takes one more recipient; at most `most`.

    Without a login (the MX port) only addresses of domains hosted here are taken,
    whoever the sender claims to be. There, mail that an alias leads outside is charged
    to the alias's tenant and can be over its limit at the end of DATA, for all recipients
    at once: so such a recipient shares a transaction only with those of its own tenant,
    and one tenant's limit never holds up another's mail. 452 4.5.3 is what every server
    takes for "the rest in the next transaction" (RFC 5321 §4.5.3.1.10).
    """
    if resolution.verdict is Verdict.LOOPS:
        return reply.ALIAS_LOOPS.about(address=resolution.asked)
    if resolution.verdict is Verdict.BLOCKED:
        return reply.SENDER_BLOCKED.about(address=resolution.asked)
    if resolution.verdict is Verdict.UNKNOWN:
        return reply.NO_SUCH_MAILBOX.about(address=resolution.asked)
    if resolution.verdict is Verdict.ELSEWHERE and login is None:
        return reply.NO_RELAY.about(address=resolution.asked)
    if so_far.count >= most:
        return reply.TOO_MANY_RECIPIENTS
    is_shared = bool(so_far.tenants - {resolution.tenant_id})
    if login is None and is_shared and (resolution.is_charged or so_far.any_charged):
        return reply.ALONE_PLEASE.about(address=resolution.asked)
    return None


def message_refused(
    *, from_count: int, received_count: int, most_hops: int, login: Login | None
) -> Reply | None:
    """Whether a message is refused for its header, whose fields were counted.

    None or several From fields are refused of those who log in: which of them a reader
    shows is anybody's guess, so none can be checked (RFC 5322 §3.6). From elsewhere
    that is left to DMARC. More than `most_hops` Received fields are a loop (RFC 5321 §6.3).
    """
    if received_count > most_hops:
        return reply.TOO_MANY_HOPS.about(count=received_count)
    if login is not None and from_count != 1:
        return reply.FROM_MISSING.about(count=from_count)
    return None


def charges(login: Login | None, recipients: Sequence[Resolution]) -> tuple[tuple[Subject, int], ...]:
    """Who pays for how many recipients of one message, by kind and id.

    With a login each accepted RCPT is one, to each subject of the login. An address
    outside that an alias leads to is one more, beside its RCPT: it leaves the house as
    a mail of its own. The submitter pays for it when the alias is its own tenant's, else
    the alias's tenant does: from its own counters nobody learns what another tenant's
    alias leads to. Mail from outside is charged only where an alias leads outside again.
    """
    subjects: dict[tuple[Kind, int], Subject] = {}
    counts: dict[tuple[Kind, int], int] = {}

    def charge(payers: Sequence[Subject]) -> None:
        for payer in payers:
            subjects.setdefault(payer.key, payer)
            counts[payer.key] = counts.get(payer.key, 0) + 1

    submitter = login.limits if login else ()
    for recipient in recipients:
        charge(submitter)
        for delivery in recipient.deliveries:
            if delivery.charged:
                charge(submitter if login and _is_own(delivery, login) else delivery.charged)
    return tuple((subjects[key], counts[key]) for key in sorted(counts))


def _is_own(delivery: Delivery, login: Login) -> bool:
    """Whether the alias that leads outside is of the login's tenant."""
    return any(subject.kind is Kind.TENANT and subject.id == login.tenant_id for subject in delivery.charged)


def over_limit(over: OverLimit, login: Login | None) -> Reply:
    """What is said at the end of DATA when a message doesn't fit a limit.

    450 4.7.1 when it fits later: the submitter's own program may try again. 550 5.7.1
    when it has more recipients than the whole limit: to try again would never help, and
    the person is told now and not after days. That goes for the submitter's own tenant.
    Of a limit that is another's, or nobody's (a shared domain's), nothing is told, not
    even that it is never: what the alias of another tenant leads to could be counted
    by it. A server elsewhere gives up by itself.
    """
    subject = over.subject
    if login is None or subject.key not in {own.key for own in login.limits}:
        return reply.RECIPIENT_UNAVAILABLE.about(address="a recipient")
    if subject.tenant_id != login.tenant_id:
        return reply.SENDING_BUSY
    facts = {"subject": subject.words, "allowed": over.allowed, "window": over.window.words}
    if over.allowed == 0:
        return reply.NOTHING_ALLOWED.about(**facts)
    if over.never:
        return reply.OVER_LIMIT_FOR_GOOD.about(asked=over.asked, **facts)
    return reply.OVER_LIMIT.about(free_at=_clock_time(over.free_at_s, over.at_s), **facts)


def _clock_time(at_s: int, now_s: int) -> str:
    """14:35, with its date when it isn't within 12 hours; UTC."""
    at = datetime.fromtimestamp(at_s, UTC)
    is_near = at_s - now_s < 12 * 3600
    return f"{at:%H:%M}" if is_near else f"{at:%Y-%m-%d %H:%M}"


def may_go(status: Status, proof: Proof | None) -> bool:
    """Whether the queue sends what this sender has in it; if not it waits, until resumed or expired.

    `status` is the strictest of tenant, domain and mailbox; `proof` that of the sender's
    domain, None when the sender has none here (the null path, forwarded mail). A lapsed
    proof stops sending at once. What a closed one has waits for the end of its grace period.
    """
    return status.may_send and proof in (None, Proof.PROVED)
