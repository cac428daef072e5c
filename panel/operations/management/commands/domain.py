"""Domains on the command line."""

from collections.abc import Sequence
from typing import Any

from django.db.models import Count

from panel.domains import checks
from panel.domains.models import Domain, DomainAlias
from panel.domains.services import canonical_name, change_domain, create_domain, delete_domain, verify_domain
from panel.operations.management import base, rows, stops
from panel.operations.management.commands.plan import find_plan
from panel.rules import records


class Command(stops.Command):
    noun = "domain"
    help = (
        "Domains: a tenant's own, or shared ones of the provider's in which many tenants hold addresses. "
        "A domain is pending until its ownership is proved: by a TXT record, which `records` shows and which is "
        "looked for every five minutes and by `check`; or --verified and `verify` say that we checked it."
    )
    examples = """
        domain create acme.example --tenant Acme --verified
        domain create isp.example --shared --verified
        domain records acme.example
        domain check acme.example
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
        listing = acts.add_list(self.list, help="Show domains.", examples="domain list --tenant Acme")
        listing.add_argument("--tenant", metavar="TENANT", help="only this tenant's own")
        for name, do, text in (
            ("show", self.show, "Show a domain."),
            ("verify", self.verify, "Say that we checked who owns a pending or lapsed domain."),
            ("delete", self.delete, "Delete a domain that holds no address and has no alias."),
            ("check", self.look_up, "Ask the DNS now for a domain's records, and say what is right, what is missing "
             "and what to do. A pending domain whose TXT record is there is proved by it. At most once in 10 seconds."),
            ("dns", self.dns, "Print the DNS records to set for a domain or domain alias, as a zone file has them."),
        ):
            act = acts.add(name, do, help=text, examples=f"domain {name} acme.example")
            act.add_argument("name", metavar="NAME")
        listed = acts.add(
            "records", self.records, help="Show the DNS records that a domain should have, and what the latest look "
            "found of them; nothing is asked. SPF is completed: what it says to copy keeps what is there.",
            examples="domain records acme.example\n domain records acme.example --zone > acme.zone",
        )
        listed.add_argument("name", metavar="NAME")
        listed.add_argument("--zone", action="store_true", help="as lines of a zone file, to be pasted")
        change = acts.add(
            "set", self.set, help="Change who puts mail into a domain's mailboxes, or who may use a shared domain.",
            examples="domain set acme.example --store lmtp\n domain set isp.example --plan Standard --plan Large",
        )
        change.add_argument("name", metavar="NAME")
        change.add_argument(
            "--store", choices=["maildir", "lmtp", "installation"],
            help="we, Dovecot by LMTP, or as POSTHOUSE_STORE says; for mail from now on, that which waits included",
        )
        change.add_argument(
            "--plan", action="append", metavar="PLAN", dest="plans",
            help="of a shared domain, may be repeated: tenants on these plans place addresses in it themselves",
        )
        self.add_stops(acts, "acme.example", "NAME")

    def find(self, name: str) -> Domain:
        return base.find_domain(name)

    def row_of(self, subject: Domain) -> base.Row:
        return rows.of_domain(subject)

    def create(self, *, name: str, tenant: str | None, shared: bool, verified: bool) -> None:
        owner = base.find_tenant(tenant) if tenant is not None else None
        domain = create_domain(name=name, tenant=owner, verified=verified, actor=None)
        state = "is proved" if verified else "is pending: it works once its ownership is proved"
        self.done(f"The domain {domain} is made; it {state}.", rows.of_domain(domain))

    def list(self, *, tenant: str | None) -> None:
        domains = Domain.objects.select_related("tenant").prefetch_related("plans").annotate(count=Count("addresses"))
        if tenant is not None:
            domains = domains.filter(tenant=base.find_tenant(tenant))
        self.rows(
            map(rows.of_domain, domains),
            ("name", "written", "tenant", "kind", "proof", "status", "addresses", "store", "reason"),
            empty="There is no domain: `manage.py domain create NAME --tenant TENANT` makes the first.",
        )

    def show(self, *, name: str) -> None:
        self.show_row(rows.of_domain(base.find_domain(name)))

    def verify(self, *, name: str) -> None:
        domain = base.find_domain(name)
        verify_domain(domain, actor=None)
        self.done(f"The domain {domain} is proved: checked by us.", rows.of_domain(domain))

    def delete(self, *, name: str) -> None:
        domain = base.find_domain(name)
        row = rows.of_domain(domain)
        delete_domain(domain, actor=None)
        self.done(f"The domain {row['name']} is deleted.", row)

    def look_up(self, *, name: str) -> None:
        domain = base.find_domain(name)
        self._show(domain, checks.check(domain, actor=None))

    def records(self, *, name: str, zone: bool) -> None:
        domain = base.find_domain(name)
        known = checks.shown(domain)
        if zone and not self.as_json:
            self.stdout.write(known.zone)
        else:
            self._show(domain, known)

    def _show(self, domain: Domain, known: checks.Shown) -> None:
        if self.as_json:
            self.json(rows.of_check(domain, known))
            return
        sentence = f" {known.overall.sentence}" if str(known.overall.sentence) else ""
        self.say(f"{domain}: {known.overall.words}.{sentence}")
        self.say(f"Looked up {known.checked_at:%Y-%m-%d %H:%M:%S} UTC." if known.checked_at else "Not looked up yet: "
                 f"`manage.py domain check {domain}` does it now.")
        if known.sending_ends_at:
            self.say(f"Sending stops {known.sending_ends_at:%Y-%m-%d %H:%M} UTC unless the proof is there again.")
        for heading, found in (("Required", known.required), ("Optional: mail works without them", known.optional)):
            self.say("")
            self.say(f"{heading}:")
            for row in found:
                self.say(f"  {row.verdict.value:<11}  {row.record.label}: {row.record.name} {row.record.type}")
                for value in row.record.values:
                    self.say(f"      should be  {value}")
                if row.found != row.record.values:
                    for value in row.found:
                        self.say(f"      found      {value}")
                if str(row.sentence):
                    self.say(f"      {row.sentence}")

    def dns(self, *, name: str) -> None:
        alias = DomainAlias.objects.select_related("domain__tenant").filter(name=canonical_name(name)).first()
        wanted = checks.expected_of_alias(alias) if alias else checks.expected(base.find_domain(name))
        if self.as_json:
            self.json([
                {
                    "name": one.name, "type": one.type, "value": records.in_zone(one.type, value),
                    "purpose": one.purpose,
                }
                for one in wanted for value in one.values
            ])
        else:
            self.stdout.write(records.zone_text(alias.name if alias else canonical_name(name), wanted))

    def set(self, *, name: str, store: str | None, plans: Sequence[str] | None) -> None:
        if store is None and plans is None:
            raise base.Usage("Say what to change: --store or --plan.")
        domain = base.find_domain(name)
        values: dict[str, Any] = {}
        if store is not None:
            values["store"] = "" if store == "installation" else store
        if plans is not None:
            values["plans"] = [find_plan(plan) for plan in plans if plan]
        before = rows.of_domain(domain)
        change_domain(domain, actor=None, **values)
        self.unchanged(before, rows.of_domain(domain), f"the domain {domain}")
        stored = {"": "as POSTHOUSE_STORE says", "maildir": "in Maildirs by us", "lmtp": "by Dovecot, over LMTP"}
        said = f"Mail for {domain} is stored {stored[domain.store]}." if store is not None else (
            f"The domain {domain} is changed."
        )
        self.done(said, rows.of_domain(domain))
