"""Routes outward on the command line."""

from panel.domains.services import canonical_name
from panel.operations.management import base, rows
from panel.sending.models import OutboundRoute
from panel.sending.services import parse_route, remove_route, set_route
from panel.tenants.changes import NotFound


class Command(base.Command):
    help = "Routes: another way to a domain than its MX. The domain * stands for every domain without a route."
    examples = """
        route set partner.example smtp://relay.partner.example:25
        route set '*' smtp://[2001:db8::25]:587 --tls required
        route remove partner.example
    """

    def add_acts(self, acts: base.Acts) -> None:
        change = acts.add(
            "set", self.set, help="Send mail for a domain to this host.",
            examples="route set partner.example smtp://relay.partner.example:25",
        )
        change.add_argument("domain", metavar="DOMAIN", help="or * for every domain without a route")
        change.add_argument("url", metavar="URL", help="smtp://HOST:PORT")
        change.add_argument(
            "--tls", default=OutboundRoute.Tls.OPPORTUNISTIC.value,
            help="opportunistic (when offered; the default), required (certificate checked) or none",
        )
        acts.add_list(self.list, help="Show all routes.", examples="route list --json")
        for name, do, text in (
            ("show", self.show, "Show the route of a domain."),
            ("remove", self.remove, "Let mail for a domain go by its MX again."),
        ):
            act = acts.add(name, do, help=text, examples=f"route {name} partner.example")
            act.add_argument("domain", metavar="DOMAIN", help="or * for every domain without a route")

    def set(self, *, domain: str, url: str, tls: str) -> None:
        host, port = parse_route(url)
        route = set_route(domain=domain, host=host, port=port, tls=tls, actor=None)
        self.done(f"The route is set: {route}.", rows.of_route(route))

    def list(self) -> None:
        self.rows(
            map(rows.of_route, OutboundRoute.objects.all()), ("domain", "route", "tls"),
            empty="There is no route: all mail goes by MX.",
        )

    def show(self, *, domain: str) -> None:
        self.show_row(rows.of_route(_find(domain)))

    def remove(self, *, domain: str) -> None:
        route = _find(domain)
        row = rows.of_route(route)
        remove_route(route, actor=None)
        self.done(f"The route for {row['domain']} is removed.", row)


def _find(domain: str) -> OutboundRoute:
    name = "" if domain.strip() in ("", "*") else canonical_name(domain, "domain")
    route = OutboundRoute.objects.filter(domain=name).first()
    if route is None:
        raise NotFound(f"There is no route for {name or '*'}: `manage.py route list` shows all.", "domain")
    return route
