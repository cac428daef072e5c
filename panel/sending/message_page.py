"""A message's page in the provider's admin: where it is, what is next, why it was let through.

Bounded whatever the number of recipients: so many of them are shown, those that wait first,
with so many of their tries, and the rest is counted and led to.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.db.models import Case, Count, QuerySet, Value, When
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from panel.mailboxes.models import Credential, Mailbox
from panel.sending.models import Attempt, Hold, Message, Recipient, Window
from panel.sending.selection import HERE
from panel.tenants.credential_words import credential_words
from panel.tenants.scoped_admin import badge
from panel.tenants.shown import about, moment

MOST_RECIPIENTS = 100
MOST_TRIES = 1000  # of all that are shown together
State = Recipient.State
LOOKS = {State.WAITING: "warn", State.DELIVERED: "good", State.FAILED: "bad", State.DISCARDED: "off"}
OUTCOMES = {"delivered": "good", "deferred": "warn", "failed": "bad"}
_OUTCOME_WORDS: dict[str, Any] = {
    "delivered": gettext_lazy("delivered"), "deferred": gettext_lazy("deferred"), "failed": gettext_lazy("failed"),
}
# Of what a limit was charged, as Message.facts has it.
_LEVELS: dict[str, Any] = {
    "credential": gettext_lazy("password"), "mailbox": gettext_lazy("mailbox"), "domain": gettext_lazy("domain"),
    "tenant": gettext_lazy("tenant"),
}


def recipient_state(recipient: Recipient) -> SafeString:
    """The state as a badge, and why it is held if it is."""
    if recipient.state == State.WAITING and recipient.holds:
        return format_html('{} <span class="ph-dim ph-why">{}</span>', badge("bad", _("held")), hold_words(recipient))
    return badge(LOOKS[State(recipient.state)], str(recipient.get_state_display()))


def hold_words(recipient: Recipient) -> str:
    return ", ".join(str(hold.label) for hold in list(Hold) if recipient.holds & hold)


def shown(message: Message, recipients: QuerySet[Recipient]) -> dict[str, Any]:
    """What the page shows of the message and of these, its recipients."""
    now = timezone.now()
    counts = dict(recipients.order_by().values_list("state").annotate(Count("pk")))
    total = sum(counts.values())
    first = Case(
        When(state=State.WAITING, then=Value(0)), When(state=State.FAILED, then=Value(1)), default=Value(2)
    )
    rows = list(recipients.order_by(first, "pk")[:MOST_RECIPIENTS])
    # Of those that go, the one whose turn is first: not always among the rows that are shown.
    following = recipients.filter(state=State.WAITING).order_by(
        Case(When(holds=0, then=Value(0)), default=Value(1)), "due_at", "pk"
    ).first()
    return {
        "message": message,
        "subject": message.subject or _("(no subject)"),
        "state": state_in_words(counts),
        "next": _next(following, counts.get(State.WAITING, 0), now),
        **_from(message),
        "legs": legs(rows),
        "total": total,
        "more": ngettext(
            "{n:,} more recipient", "{n:,} more recipients", total - len(rows)
        ).format(n=total - len(rows)) if total > len(rows) else "",
        "all": f"{reverse('admin:sending_recipient_changelist')}?{urlencode({'message': message.queue_id})}",
        "charged": [_bar(each) for each in message.facts.get("charged", ()) if isinstance(each, dict)],
        "as_it_stood": moment(message.accepted_at),
        "size": about(message.size),
    }


def state_in_words(counts: dict[str, int]) -> SafeString:
    """Where a message with so many recipients in each state is, as a badge."""
    total, delivered = sum(counts.values()), counts.get(State.DELIVERED, 0)
    if not total:
        return badge("off", _("no recipients here any more"))
    look = next(LOOKS[state] for state in (State.WAITING, State.FAILED, State.DISCARDED, State.DELIVERED)
                if counts.get(state))
    if delivered == total:
        return badge("good", _("Delivered") if total == 1 else _("Delivered to all {total:,}").format(total=total))
    if delivered:
        return badge(look, _("Delivered to {delivered:,} of {total:,}").format(delivered=delivered, total=total))
    if counts.get(State.WAITING):
        return badge(look, _("Not delivered yet"))
    if len(counts) > 1:
        return badge(look, _("Not delivered"))
    return badge(look, _("Failed") if counts.get(State.FAILED) else _("Given up"))


def legs(rows: Sequence[Recipient]) -> list[dict[str, Any]]:
    """Each recipient's way as far as it went, with its tries, newest first. Two queries."""
    tries: dict[int, list[Attempt]] = {}
    found = Attempt.objects.filter(recipient_id__in=[each.pk for each in rows]).order_by("-id")[:MOST_TRIES]
    for attempt in found:
        tries.setdefault(attempt.recipient_id, []).append(attempt)
    mailboxes = _mailboxes(each.resolved for each in rows if each.next_hop in HERE)
    return [_leg(each, tries.get(each.pk, []), mailboxes.get(each.resolved, "")) for each in rows]


def _leg(recipient: Recipient, tries: Sequence[Attempt], mailbox: str) -> dict[str, Any]:
    last = tries[0] if tries else None
    at = recipient.settled_at or (last.at if last else None)
    reply = recipient.last_reply or (last.reply if last else "")
    waits = recipient.state == State.WAITING
    here = recipient.next_hop in HERE
    on_the_way = waits and recipient.lease_until is not None and recipient.lease_until > timezone.now()
    nothing = _("not tried yet") if waits else _("into the mailbox, before it was answered") if here else ""
    return {
        "recipient": recipient,
        "url": reverse("admin:sending_recipient_change", args=(recipient.pk,)),
        "state": recipient_state(recipient),
        "at": at,
        "next": moment(recipient.due_at) if waits and not recipient.holds and not on_the_way else "",
        "on_the_way": on_the_way,
        "reply": reply,
        "last": _try(last) if last else None,
        "nothing": nothing,
        "earlier": [_try(each) for each in tries[1:]],
        "leads": recipient.resolved if recipient.resolved != recipient.original else "",
        "mailbox": mailbox,
        "hop": "" if here else recipient.next_hop,
    }


def _try(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": attempt.at,
        "state": badge(
            OUTCOMES.get(attempt.outcome, "off"), str(_OUTCOME_WORDS.get(attempt.outcome, attempt.outcome))
        ),
        "host": attempt.host,
        "address": attempt.address,
        "tls": tls_in_words(attempt.tls),
        "cipher": attempt.tls,
        "took": f"{attempt.duration_ms:,} ms" if attempt.duration_ms < 1000 else f"{attempt.duration_ms / 1000:,.1f} s",
        "reply": attempt.reply,
    }


def _next(recipient: Recipient | None, waiting: int, now: datetime) -> dict[str, Any] | None:
    """What happens next to the recipient whose turn is first; None when nothing waits."""
    if recipient is None:
        return None
    more = waiting - 1
    others = ngettext("{n:,} more waits.", "{n:,} more wait.", more).format(n=more) if more > 0 else ""
    what = {"address": recipient.original, "others": others, "until": recipient.expires_at}
    if recipient.holds:
        lifted = _("It goes when its sender is resumed.") if recipient.holds & Hold.SUSPENDED else (
            _("It waits until you try it again or give it up.")
        )
        return {**what, "held": hold_words(recipient), "lifted": lifted}
    if recipient.lease_until is not None and recipient.lease_until > now:
        return {**what, "words": _("is being delivered just now")}
    what["number"] = recipient.tries + 1
    if recipient.due_at <= now:
        words = _("is tried again as soon as it is its turn") if recipient.tries else _(
            "is tried as soon as it is its turn"
        )
        return {**what, "words": words}
    words = _("is tried again {when}") if recipient.tries else _("is tried {when}")
    return {**what, "words": format_html(words, when=moment(recipient.due_at, now))}


def _from(message: Message) -> dict[str, Any]:
    """Who sent it, by what, from where: with a way to each that is still there."""
    credential = None
    if message.credential_id:
        credential = Credential.objects.select_related("mailbox__address__domain").filter(
            pk=message.credential_id
        ).first()
    mailbox = credential.mailbox if credential else None
    by = message.credential_text
    name = str(mailbox) if mailbox else ""
    sender = _copied(message.reverse_path) if message.reverse_path else format_html(
        _("nobody (the null path {})"), _mono("<>")
    )
    # What logged in names the mailbox first: it has its own link.
    words = credential_words(by.removeprefix(f"{name}, ") if name else by)
    who = _link(reverse("admin:mailboxes_credential_change", args=(credential.pk,)), words) if credential else words
    if mailbox:
        box = _link(reverse("admin:mailboxes_mailbox_change", args=(mailbox.pk,)), name)
        who = format_html("{}, {}", box, who)
    tls = format_html('<span title="{}">{}</span>', message.tls, tls_in_words(message.tls))
    return {
        "from": format_html(
            _("From {sender}{by}{place}, accepted {when}."), sender=sender,
            by=format_html(_(" by {who}"), who=who) if by else "",
            place=format_html(
                _(" from {ip} over {tls}") if message.tls else _(" from {ip} without TLS"),
                ip=_copied(message.client_ip), tls=tls,
            ) if message.client_ip else "",
            when=moment(message.accepted_at),
        ),
        "tenant": _link(
            reverse("admin:tenants_tenant_change", args=(message.tenant_id,)), str(message.tenant)
        ) if message.tenant_id else "",
    }


def _link(url: str, words: str) -> SafeString:
    return format_html('<a class="ph-link" href="{}">{}</a>', url, words)


def _mono(text: str) -> SafeString:
    return format_html('<span class="ph-mono">{}</span>', text)


def _copied(text: object) -> SafeString:
    return format_html('<span class="ph-mono" data-copy>{}</span>', text)


def tls_in_words(tls: str) -> str:
    """"TLS 1.3" for "TLSv1.3 TLS_AES_256_GCM_SHA384"; empty for none."""
    return tls.partition(" ")[0].replace("TLSv", "TLS ")


def _mailboxes(resolved: Iterable[str]) -> dict[str, str]:
    """The pages of the mailboxes among these addresses. One query."""
    parts = {text: text.rpartition("@") for text in resolved}
    if not parts:
        return {}
    found = Mailbox.objects.filter(
        address__local_part__in={local for local, _, _ in parts.values()},
        address__domain__name__in={domain for _, _, domain in parts.values()},
    ).values_list("pk", "address__local_part", "address__domain__name")
    return {
        f"{local}@{domain}": reverse("admin:mailboxes_mailbox_change", args=(pk,)) for pk, local, domain in found
    }


def _bar(each: dict[str, Any]) -> dict[str, Any]:
    """One limit as it stood with this message counted."""
    used, allowed = each.get("used"), each.get("allowed")
    window = dict(Window.choices).get(str(each.get("window")), each.get("window"))
    kind = str(each.get("kind", ""))
    bar = {"words": _("{kind} {name}, {window}").format(
        kind=_LEVELS.get(kind, kind), name=each.get("name", ""), window=window,
    ), "used": None}
    if not isinstance(used, int) or not isinstance(allowed, int):
        return {**bar, "figures": _("{used:,}, unlimited").format(used=used) if isinstance(used, int) else ""}
    return {
        **bar,
        "figures": _("{used:,} of {allowed:,}").format(used=used, allowed=allowed),
        "used": used,
        "allowed": allowed,
        # Where it turns to a warning, as on the storage bars.
        "low": int(allowed * 0.75),
        "high": int(allowed * 0.9),
    }
