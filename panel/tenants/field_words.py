"""What the fields of rows, forms and the audit log are called, in the reader's language.

A model's field whose name says it all needs no other: in English it is called by its name. A ServiceError and
the audit log name fields as well, and some that are no model's.
"""

from collections.abc import Iterable
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy

# In English each is the name with its underscores as spaces (without "_bytes").
WORDS: dict[str, Any] = {
    "account": gettext_lazy("account"),
    "action": gettext_lazy("action"),
    "actor": gettext_lazy("actor"),
    "address": gettext_lazy("address"),
    "after": gettext_lazy("after"),
    "alias": gettext_lazy("alias"),
    "aliases": gettext_lazy("aliases"),
    "because": gettext_lazy("because"),
    "before": gettext_lazy("before"),
    "blocked": gettext_lazy("blocked"),
    "browser": gettext_lazy("browser"),
    "can be restored until": gettext_lazy("can be restored until"),
    "created_at": gettext_lazy("created at"),
    "credential": gettext_lazy("credential"),
    "credentials": gettext_lazy("credentials"),
    "customers": gettext_lazy("customers"),
    "day": gettext_lazy("day"),
    "description": gettext_lazy("description"),
    "direction": gettext_lazy("direction"),
    "domain": gettext_lazy("domain"),
    "domains": gettext_lazy("domains"),
    "done": gettext_lazy("done"),
    "email": gettext_lazy("email"),
    "ended": gettext_lazy("ended"),
    "expires_at": gettext_lazy("expires at"),
    "for_customers": gettext_lazy("for customers"),
    "forward_keep": gettext_lazy("forward keep"),
    "forward_to": gettext_lazy("forward to"),
    "frozen_at": gettext_lazy("frozen at"),
    "frozen_reason": gettext_lazy("frozen reason"),
    "host": gettext_lazy("host"),
    "hour": gettext_lazy("hour"),
    "is_active": gettext_lazy("is active"),
    "junk": gettext_lazy("junk"),
    "kind": gettext_lazy("kind"),
    "label": gettext_lazy("label"),
    "last_reply": gettext_lazy("last reply"),
    "last_used_at": gettext_lazy("last used at"),
    "left": gettext_lazy("left"),
    "login": gettext_lazy("login"),
    "mailbox": gettext_lazy("mailbox"),
    "mailbox_day": gettext_lazy("mailbox day"),
    "mailbox_hour": gettext_lazy("mailbox hour"),
    "mailboxes": gettext_lazy("mailboxes"),
    "name": gettext_lazy("name"),
    "networks": gettext_lazy("networks"),
    "notes": gettext_lazy("notes"),
    "of": gettext_lazy("of"),
    "outcome": gettext_lazy("outcome"),
    "parent": gettext_lazy("parent"),
    "password": gettext_lazy("password"),
    "people_second_factor_required": gettext_lazy("second factor required of people with mailboxes"),
    "plan": gettext_lazy("plan"),
    "plans": gettext_lazy("plans"),
    "port": gettext_lazy("port"),
    "proof": gettext_lazy("proof"),
    "protocol": gettext_lazy("protocol"),
    "proved_by": gettext_lazy("proved by"),
    "provider_role": gettext_lazy("provider role"),
    "queue_id": gettext_lazy("queue id"),
    "quota_bytes": gettext_lazy("quota"),
    "reason": gettext_lazy("reason"),
    "recipient": gettext_lazy("recipient"),
    "recipients": gettext_lazy("recipients"),
    "released": gettext_lazy("released"),
    "role": gettext_lazy("role"),
    "scopes": gettext_lazy("scopes"),
    "second_factor_required": gettext_lazy("second factor required"),
    "sender": gettext_lazy("sender"),
    "sending stops": gettext_lazy("sending stops"),
    "size": gettext_lazy("size"),
    "state": gettext_lazy("state"),
    "status": gettext_lazy("status"),
    "status_reason": gettext_lazy("status reason"),
    "storage_bytes": gettext_lazy("storage"),
    "store": gettext_lazy("store"),
    "subject": gettext_lazy("subject"),
    "targets": gettext_lazy("targets"),
    "tenant": gettext_lazy("tenant"),
    "tenant_day": gettext_lazy("tenant day"),
    "tenant_hour": gettext_lazy("tenant hour"),
    "tls": "TLS",
    "tries": gettext_lazy("tries"),
    "until at most": gettext_lazy("until at most"),
    "user": gettext_lazy("user"),
    "vacation": gettext_lazy("vacation"),
    "vacation_days": gettext_lazy("vacation days"),
    "vacation_from": gettext_lazy("vacation from"),
    "vacation_subject": gettext_lazy("vacation subject"),
    "vacation_text": gettext_lazy("vacation text"),
    "vacation_until": gettext_lazy("vacation until"),
    "which": gettext_lazy("which"),
    "window": gettext_lazy("window"),
}
# Models that are called by their own name, and several of them.
_MODELS: dict[str, tuple[Any, Any]] = {
    "tenant": (gettext_lazy("tenant"), gettext_lazy("tenants")),
    "plan": (gettext_lazy("plan"), gettext_lazy("plans")),
    "membership": (gettext_lazy("membership"), gettext_lazy("memberships")),
    "domain": (gettext_lazy("domain"), gettext_lazy("domains")),
    "mailbox": (gettext_lazy("mailbox"), gettext_lazy("mailboxes")),
    "alias": (gettext_lazy("alias"), gettext_lazy("aliases")),
    "credential": (gettext_lazy("password"), gettext_lazy("passwords")),
    "message": (gettext_lazy("message"), gettext_lazy("messages")),
    "recipient": (gettext_lazy("recipient"), gettext_lazy("recipients")),
    "sendinglimit": (gettext_lazy("sending limit"), gettext_lazy("sending limits")),
    "outboundroute": (gettext_lazy("route"), gettext_lazy("routes")),
    "bulkact": (gettext_lazy("bulk act"), gettext_lazy("bulk acts")),
    # Named on the page of what goes with them.
    "secondfactor": (gettext_lazy("second factor"), gettext_lazy("second factors")),
    "recoverycode": (gettext_lazy("recovery code"), gettext_lazy("recovery codes")),
    "panelsession": (gettext_lazy("session"), gettext_lazy("sessions")),
    "aliastarget": (gettext_lazy("target"), gettext_lazy("targets")),
}


def field_words(field: str) -> str:
    """What a field is called; by its name where nothing is known of it."""
    return str(WORDS.get(field) or field.removesuffix("_bytes").replace("_", " "))


def name_in_every_language(found: Iterable[type[models.Model]]) -> None:
    """Call the fields and models that name themselves so in the reader's language, not as the class was made.

    Beside the models, and so in no migration: what they say for themselves stays.
    """
    for model in found:
        for field in (*model._meta.fields, *model._meta.many_to_many):
            if getattr(field, "_verbose_name", "") is None and field.name in WORDS:
                field.verbose_name = WORDS[field.name]
        if model._meta.model_name in _MODELS:
            model._meta.verbose_name, model._meta.verbose_name_plural = _MODELS[model._meta.model_name]
