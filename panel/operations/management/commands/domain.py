"""Domains on the command line."""

from django.conf import settings
from django.db.models import Count

from panel.domains.dns import dns_advice, zone_text
from panel.domains.models import Domain, DomainAlias
from panel.domains.services import canonical_name, change_domain, create_domain, verify_domain
from panel.operations.management import base
from panel.operations.services import resume, suspend
from panel.rules.addresses import display_domain
from panel.rules.status import Status


class Command(base.Command):
    help = (
        "Domains: a tenant's own, or shared ones of the provider's in which many tenants hold addresses. "
        "A domain is pending until its ownership is proved; --verified and `verify` say that we checked it."
    )
    examples = """
        domain create acme.example --tenant Acme --verified
        domain create isp.example --shared --verified
        domain dns acme.example
        domain set acme.example --store lmtp
        domain suspend acme.example --reason "its site was taken over"
    """

    def add_acts(self, acts: base.Acts) -> None:
        create = acts.add(
            "create", self.create, help="Make a domain.",
            examples="domain create acme.example --tenant Acme\n domain create isp.example --shared --verified",
        )
        create.add_argument("name", metavar="NAME", help="such as acme.example or bücher.example")
        whose = create.add_mutually_exclusive_group(required=True)
        whose.add_argument("--tenant", metavar="TENANT", help="whose own it is")
        whose.add_argument("--shared", action="store_true", help="the provider's: each address has its own tenant")
        create.add_argument("--verified", action="store_true", help="we checked the ownership: it works at once")
        acts.add_list(self.list, help="Show all domains.")
        verify = acts.add("verify", self.verify, help="Say that we checked who owns a pending or lapsed domain.")
        verify.add_argument("name", metavar="NAME")
        dns = acts.add(
            "dns", self.dns, help="Print the DNS records to set for a domain or domain alias, as a zone file has them.",
            examples="domain dns acme.example",
        )
        dns.add_argument("name", metavar="NAME")
        change = acts.add(
            "set", self.set, help="Change who puts mail into a domain's mailboxes.",
            examples="domain set acme.example --store lmtp",
        )
        change.add_argument("name", metavar="NAME")
        change.add_argument(
            "--store", required=True, choices=["maildir", "lmtp", "installation"],
            help="we, Dovecot by LMTP, or as POSTHOUSE_STORE says; for mail from now on, that which waits included",
        )
        for name, do, text, required in (
            ("suspend", self.suspend, "Stop all logins and all sending of a domain; its mail still comes in.", True),
            ("resume", self.resume, "Make a suspended domain active again, and what waits of it due.", False),
        ):
            act = acts.add(name, do, help=text, examples=f'domain {name} acme.example --reason "as agreed by phone"')
            act.add_argument("name", metavar="NAME")
            base.add_reason(act, required=required)
            if name == "suspend":
                act.add_argument("--sending-only", action="store_true", help="stop only the sending, not the logins")

    def create(self, *, name: str, tenant: str | None, shared: bool, verified: bool) -> None:
        owner = base.find_tenant(tenant) if tenant is not None else None
        domain = create_domain(name=name, tenant=owner, verified=verified, actor=None)
        state = "is proved" if verified else "is pending: it works once its ownership is proved"
        self.say(f"The domain {domain} is made; it {state}.")

    def list(self, *, as_json: bool) -> None:
        domains = Domain.objects.select_related("tenant").annotate(count=Count("addresses"))
        rows = [
            (one.name, display_domain(one.name), one.tenant or "", one.kind, one.proof, Status(one.status).words,
             one.count, one.store or "installation", one.status_reason)
            for one in domains
        ]
        self.table(
            ("NAME", "WRITTEN", "TENANT", "KIND", "PROOF", "STATUS", "ADDRESSES", "STORE", "REASON"), rows,
            as_json=as_json,
            empty="There is no domain: `manage.py domain create NAME --tenant TENANT` makes the first.",
        )

    def verify(self, *, name: str) -> None:
        domain = base.find_domain(name)
        verify_domain(domain, actor=None)
        self.say(f"The domain {domain} is proved: checked by us.")

    def dns(self, *, name: str) -> None:
        alias = DomainAlias.objects.filter(name=canonical_name(name)).first()
        known = alias.name if alias else base.find_domain(name).name
        self.stdout.write(zone_text(known, dns_advice(known, settings.ENVIRONMENT)))

    def set(self, *, name: str, store: str) -> None:
        domain = base.find_domain(name)
        change_domain(domain, store="" if store == "installation" else store, actor=None)
        stored = {"": "as POSTHOUSE_STORE says", "maildir": "in Maildirs by us", "lmtp": "by Dovecot, over LMTP"}
        self.say(f"Mail for {domain} is stored {stored[domain.store]}.")

    def suspend(self, *, name: str, reason: str, sending_only: bool) -> None:
        domain = base.find_domain(name)
        suspend(domain, reason=reason, sending_only=sending_only, actor=None)
        self.say(f"The domain {domain} is {Status(domain.status).words}.")

    def resume(self, *, name: str, reason: str) -> None:
        domain = base.find_domain(name)
        resume(domain, reason=reason, actor=None)
        self.say(f"The domain {domain} is active.")
