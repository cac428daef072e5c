"""Rows of the message log and the queue, as the mailserver's spool writes them."""

from datetime import timedelta

from django.utils import timezone

from panel.database.ids import IdMaker
from panel.sending.models import Attempt, Message, Recipient
from panel.tenants.models import Tenant

_ids = IdMaker(node=63, worker=63)


def message(tenant: Tenant | None = None, **fields) -> Message:
    """A message that `tenant` submitted; without one, mail from elsewhere."""
    defaults = {
        "accepted_at": timezone.now(), "direction": "submission" if tenant else "inbound", "size": 812,
        "reverse_path": "shop@demo.test", "client_ip": "203.0.113.9", "tls": "TLSv1.3", "subject": "Invoice 4711",
        "credential_text": 'app password "web shop"' if tenant else "", "facts": {"mailbox 1 hour": "12 of 200"},
    }
    return Message.objects.create(id=_ids.next(), tenant=tenant, **{**defaults, **fields})


def recipient(of: Message, original: str, **fields) -> Recipient:
    """A recipient of the message; delivered, unless told otherwise."""
    now = timezone.now()
    defaults = {
        "tenant": of.tenant, "resolved": original, "next_hop": original.rpartition("@")[2], "state": "delivered",
        "due_at": now, "expires_at": now + timedelta(days=5), "last_reply": "250 2.0.0 OK",
    }
    return Recipient.objects.create(id=_ids.next(), message=of, original=original, **{**defaults, **fields})


def waiting(tenant: Tenant, address: str, **fields) -> Recipient:
    """A waiting recipient of a message of its own."""
    return recipient(message(tenant), address, **{"state": "waiting", "last_reply": "", **fields})


def attempt(of: Recipient, outcome: str = "deferred", **fields) -> Attempt:
    defaults = {
        "at": timezone.now(), "host": "mx.elsewhere.test", "address": "198.51.100.7", "tls": "TLSv1.3",
        "reply": "451 4.7.1 Greylisted", "duration_ms": 38,
    }
    return Attempt.objects.create(
        id=_ids.next(), recipient=of, tenant=of.tenant, recipient_tenant=of.recipient_tenant, outcome=outcome,
        **{**defaults, **fields},
    )
