"""Domain aliases on the command line."""

from panel.domains.models import DomainAlias
from panel.domains.services import canonical_name, create_domain_alias, delete_domain_alias, verify_domain_alias
from panel.operations.management import base, rows
from panel.tenants.changes import NotFound


class Command(base.Command):
    help = "Domain aliases: a whole domain that stands for another, anything@alias reaches anything@domain."
    examples = """
        domainalias create acme.test acme.example --verified
        domainalias list
    """

    def add_acts(self, acts: base.Acts) -> None:
        create = acts.add(
            "create", self.create, help="Make a domain stand for another.",
            examples="domainalias create acme.test acme.example --verified",
        )
        create.add_argument("name", metavar="NAME")
        create.add_argument("domain", metavar="DOMAIN", help="where its mail goes")
        create.add_argument("--verified", action="store_true", help="we checked the ownership: it works at once")
        acts.add_list(self.list, help="Show all domain aliases.", examples="domainalias list --json")
        for name, do, text in (
            ("show", self.show, "Show a domain alias."),
            ("verify", self.verify, "Say that we checked who owns it."),
            ("delete", self.delete, "Let it no longer stand for another."),
        ):
            act = acts.add(name, do, help=text, examples=f"domainalias {name} acme.test")
            act.add_argument("name", metavar="NAME")

    def create(self, *, name: str, domain: str, verified: bool) -> None:
        alias = create_domain_alias(name=name, domain=base.find_domain(domain), verified=verified, actor=None)
        state = "is proved" if verified else "is pending: it works once its ownership is proved"
        self.done(f"{alias.name} stands for {alias.domain}; it {state}.", rows.of_domain_alias(alias))

    def list(self) -> None:
        self.rows(
            map(rows.of_domain_alias, DomainAlias.objects.select_related("domain")),
            ("name", "written", "domain", "proof"), empty="There is no domain alias.",
        )

    def show(self, *, name: str) -> None:
        self.show_row(rows.of_domain_alias(_find(name)))

    def verify(self, *, name: str) -> None:
        alias = _find(name)
        verify_domain_alias(alias, actor=None)
        self.done(f"{alias.name} is proved: checked by us.", rows.of_domain_alias(alias))

    def delete(self, *, name: str) -> None:
        alias = _find(name)
        row = rows.of_domain_alias(alias)
        delete_domain_alias(alias, actor=None)
        self.done(f"{row['name']} no longer stands for {row['domain']}.", row)


def _find(name: str) -> DomainAlias:
    alias = DomainAlias.objects.filter(name=canonical_name(name)).select_related("domain__tenant").first()
    if alias is None:
        raise NotFound(f"There is no domain alias {name}: `manage.py domainalias list` shows all.", "name")
    return alias
