"""What the command line tells of each thing: the objects of --json, whose keys stay as they are.

A table shows some of the keys. Sizes are in bytes, times in UTC, None is "no bound" or "never".
"""

from panel.domains.checks import Shown
from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.models import Alias, Credential, Mailbox
from panel.mailboxes.services import SCOPES
from panel.mailboxes.storage import Storage
from panel.operations.management.base import Row
from panel.rules.addresses import display_domain
from panel.rules.status import Status
from panel.sending.models import OutboundRoute
from panel.tenants.models import AuditEntry, Membership, Plan, Tenant, User
from panel.tenants.services import PLAN_NUMBERS
from panel.tenants.sign_in import second_factor


def _state(row: Mailbox | Domain | Tenant) -> Row:
    return {
        "status": Status(row.status).words, "reason": row.status_reason, "can_be_restored_until": row.grace_ends_at,
        "created_at": row.created_at,
    }


def of_plan(plan: Plan) -> Row:
    numbers = {name: getattr(plan, name) for name in PLAN_NUMBERS}
    return {"name": plan.name, **numbers, "for_customers": plan.for_customers}


def of_tenant(tenant: Tenant) -> Row:
    """Asks for the counts, unless the list has counted them (`domain_count`, `mailbox_count`)."""
    counted = hasattr(tenant, "domain_count")
    return {
        "name": tenant.name, "plan": str(tenant.plan), "parent": str(tenant.parent) if tenant.parent else None,
        "domains": tenant.domain_count if counted else tenant.domains.count(),  # type: ignore[attr-defined]
        "mailboxes": tenant.mailbox_count if counted  # type: ignore[attr-defined]
        else tenant.addresses.filter(mailbox__isnull=False).count(),
        "second_factor_required": tenant.second_factor_required,
        "people_second_factor_required": tenant.people_second_factor_required, "notes": tenant.notes, **_state(tenant),
    }


def of_domain(domain: Domain) -> Row:
    """Asks for the count of addresses, unless the list has counted them (`count`)."""
    return {
        "name": domain.name, "written": display_domain(domain.name),
        "tenant": str(domain.tenant) if domain.tenant else None, "kind": domain.kind, "proof": domain.proof,
        "addresses": domain.count if hasattr(domain, "count") else domain.addresses.count(),
        "store": domain.store or "installation", "plans": sorted(str(plan) for plan in domain.plans.all()),
        **_state(domain),
    }


def of_check(domain: Domain, known: Shown) -> Row:
    """`verdict` of a record is same, different, nothing, unreachable, conflicts or unknown (not looked up yet)."""
    return {
        "name": domain.name, "proof": domain.proof, "life": known.life, "state": str(known.overall.words),
        "sentence": str(known.overall.sentence), "looked_up_at": known.checked_at, "next_at": known.due_at,
        "sending_stops_at": known.sending_ends_at, "nameservers": list(known.nameservers),
        "records": [
            {
                "key": row.record.key, "record": row.record.label, "name": row.record.name, "type": row.record.type,
                "values": list(row.record.values), "required": row.record.is_required, "verdict": row.verdict.value,
                "found": list(row.found), "sentence": str(row.sentence), "purpose": row.record.purpose,
            }
            for row in known.rows
        ],
    }


def of_domain_alias(alias: DomainAlias) -> Row:
    return {
        "name": alias.name, "written": display_domain(alias.name), "domain": alias.domain.name, "proof": alias.proof,
        "created_at": alias.created_at,
    }


def of_mailbox(mailbox: Mailbox) -> Row:
    """`used_bytes` and `messages` are None until something is known of them; `percent` also without a quota."""
    storage = Storage.of(mailbox)
    return {
        "address": str(mailbox), "name": mailbox.name, "tenant": str(mailbox.address.tenant),
        "quota_bytes": mailbox.quota_bytes, "used_bytes": storage.used_bytes, "percent": storage.percent,
        "messages": storage.messages, "known_at": storage.known_at,
        "counted_at": storage.usage.counted_at if storage.usage else None,
        "folder": mailbox.opaque_id, **_state(mailbox),
    }


def of_alias(alias: Alias) -> Row:
    return {
        "address": str(alias), "targets": [target.target for target in alias.targets.all()],
        "tenant": str(alias.address.tenant), "description": alias.description,
        "expires": alias.expires_at, "created_at": alias.created_at,
    }


def of_credential(credential: Credential) -> Row:
    return {
        "id": credential.pk, "mailbox": str(credential.mailbox), "password": str(credential),
        "kind": credential.kind, "label": credential.label, "for": credential.scopes or list(SCOPES),
        "from": credential.networks, "expires": credential.expires_at, "last_used": credential.last_used_at,
        "state": f"frozen: {credential.frozen_reason}" if credential.frozen_at else "works",
        "created_at": credential.created_at,
    }


def of_account(account: User) -> Row:
    return {
        "email": account.email, "name": account.name, "provider": account.provider_role,
        "member_of": [f"{one.tenant}: {one.role}" for one in account.memberships.all()],
        "second_factor_since": account.second_factor.created_at if hasattr(account, "second_factor") else None,
        "second_factor_required": second_factor.is_required(account),
        "state": "open" if account.is_active else "closed", "created_at": account.created_at,
    }


def of_membership(membership: Membership) -> Row:
    return {"email": membership.user.email, "tenant": str(membership.tenant), "role": membership.role}


def of_route(route: OutboundRoute) -> Row:
    return {"domain": route.domain or "*", "route": f"smtp://{route.way}", "tls": route.tls}


def of_entry(entry: AuditEntry) -> Row:
    return {
        "id": entry.pk, "at": entry.at, "who": entry.actor_name, "what": entry.action, "to": entry.subject_name,
        "tenant": str(entry.tenant) if entry.tenant else None, "reason": entry.reason, "from": entry.ip,
        "before": entry.before, "after": entry.after,
    }
