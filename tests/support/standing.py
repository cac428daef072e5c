"""A world that is built once a module, and everybody who may ask for a page of it.

The whole module runs in one transaction that is rolled back at its end; what a request changes is undone
by `undone`. `everything` is the whole database, for the question whether anything changed at all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import connection, models, transaction
from django.test import Client

from panel.operations import services as operations
from panel.tenants import services as tenants
from panel.tenants.models import PanelSession, Tenant, User
from panel.tenants.sign_in import second_factor
from panel.tenants.sign_in.sessions import VERIFIED
from panel.tenants.sign_in.views import PENDING
from tests.support import world
from tests.support.authenticator import code_of

# A session is written when a page is looked at (a message to show, an offered second factor): it is no tenant's data.
UNWATCHED = {PanelSession}
# Who the provider's admin never lets in, why ever.
OUTSIDE = (
    "nobody", "person", "tenant owner", "tenant admin", "tenant viewer", "reseller", "other tenant", "closed",
    "closed owner", "password only",
)
STAFF = ("support", "operator", "owner")
ROLES = (*OUTSIDE, "without factor", *STAFF)


def everything() -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every model of ours, as the database gives it: asked thousands of times, so without objects."""
    ours = {app.label for app in apps.get_app_configs() if app.name.startswith("panel.")}
    found = {}
    with connection.cursor() as cursor:
        for model in apps.get_models():
            if model._meta.app_label in ours and model not in UNWATCHED:
                cursor.execute(rows_of(model))
                found[model.__name__] = cursor.fetchall()
    return found


@cache
def rows_of(model: type[models.Model]) -> str:
    """The statement for all rows of a model, the key first and in its order."""
    names = [field.attname for field in model._meta.concrete_fields if not field.primary_key]
    asked = model._base_manager.order_by("pk").values_list(model._meta.pk.attname, *names)
    statement, parameters = asked.query.sql_with_params()
    assert not parameters
    return statement


@dataclass
class Inside:
    """What `undone` does at its end."""

    is_kept: bool = False


@contextmanager
def undone() -> Iterator[Inside]:
    """What is changed inside is as before afterwards; unless it is kept, as what should have changed nothing."""
    with transaction.atomic():
        inside = Inside()
        yield inside
        if not inside.is_kept:
            transaction.set_rollback(True)


@dataclass(frozen=True)
class Rows:
    """A row of one model, of Acme and of Beta, and what adding another takes."""

    mine: models.Model
    theirs: models.Model
    add: dict[str, Any]


class Standing:
    """The house of the generated tests, a row of each registered model for both of its tenants, and all roles."""

    def __init__(self, house: Any, cases: dict[type[models.Model], Any]) -> None:
        self.house = house
        self.reseller = world.tenant("Above")
        Tenant.objects.filter(pk=house.acme.pk).update(parent=self.reseller)
        house.acme.refresh_from_db()
        self._clients: dict[bool, Client] = {}
        self._keys = {role: self._session(account, **more) for role, account, more in self._accounts()}
        self.rows = {
            model: Rows(case.row(house, True), case.row(house, False), case.add(house) if case.add else {})
            for model, case in cases.items()
        }

    def _accounts(self) -> Iterator[tuple[str, User, dict[str, Any]]]:
        def panel(name: str, **fields: Any) -> User:
            return operations.create_account(
                email=f"{name.replace(' ', '.')}@elsewhere.test", password=world.PASSWORD, actor=None, **fields
            )

        def member(name: str, tenant: Tenant, role: str) -> User:
            account = panel(name)
            tenants.create_membership(user=account, tenant=tenant, role=role, actor=None)
            return account

        yield "person", self.house.mailbox.person, {}
        for role in ("owner", "admin", "viewer"):
            yield f"tenant {role}", member(f"tenant {role}", self.house.acme, role), {}
        yield "reseller", member("reseller", self.reseller, "owner"), {}
        yield "other tenant", member("other tenant", self.house.beta, "owner"), {}
        yield "closed", member("closed", self.house.acme, "owner"), {}
        yield "closed owner", panel("closed owner", provider_role="owner"), {}
        User.objects.filter(email__startswith="closed").update(is_active=False)
        half = panel("half", provider_role="owner")
        secret = second_factor.new_secret()
        second_factor.add(half, secret, code_of(secret))
        yield "password only", half, {"pending": True}
        yield "without factor", panel("bare", provider_role="owner", second_factor_required=True), {}
        for role in STAFF:
            yield role, panel(role, provider_role=role), {}

    def _session(self, account: User, pending: bool = False) -> str:
        """The key of a session in which this account is signed in, or has given its password only."""
        client = Client()
        if not pending:
            client.force_login(account)
            return client.cookies[settings.SESSION_COOKIE_NAME].value
        session = client.session
        session[PENDING] = {"account": account.pk, "hash": account.get_session_auth_hash(), "at": 0}
        session[VERIFIED] = False
        session.save()
        return str(session.session_key)

    def client(self, role: str, *, enforce_csrf_checks: bool = False) -> Client:
        """The browser of this role, with the cookies that it had when it signed in and no others.

        One serves all: each that is made anew reads all static files again (WhiteNoise), 60 ms.
        """
        client = self._clients.setdefault(enforce_csrf_checks, Client(enforce_csrf_checks=enforce_csrf_checks))
        client.cookies.clear()
        if role in self._keys:
            client.cookies[settings.SESSION_COOKIE_NAME] = self._keys[role]
        return client
