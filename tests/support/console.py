"""Tenants, their people and their browsers, for the tests of the console.

Acme is under Above, a reseller; Beta is somebody else's. Each role of ROLES has a session.
"""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.test import Client
from django.utils import timezone

from panel.console.persons import OPENED_BY
from panel.domains import services as domains
from panel.domains.models import DomainCheck
from panel.mailboxes import links, passwords
from panel.operations import invitations
from panel.operations import services as operations
from panel.operations.recovery import ask_recovery
from panel.sending.models import Recipient
from panel.tenants import services as tenants
from panel.tenants import visits
from panel.tenants.models import Invitation, Plan, Tenant, User
from tests.support import queue, world

ROLES = (
    "anonymous", "viewer", "admin", "owner", "reseller", "other tenant", "person", "no tenant", "closed", "support",
    "operator", "support viewing", "linked owner",
)


class House:
    """The rows that addresses name, as `named` gives them, and a browser for each role."""

    def __init__(self) -> None:
        self.above = world.tenant("Above")
        self.acme = world.tenant("Acme", parent=self.above)
        self.beta = world.tenant("Beta")
        self.customers = [world.tenant("Customer", parent=each) for each in (self.acme, self.beta)]
        self.domain, self.theirs = world.domain("acme.test", self.acme), world.domain("beta.test", self.beta)
        self.names = [world.domain_alias(f"other-{each}", each) for each in (self.domain, self.theirs)]
        # Looked up just now: no test of a page asks the DNS.
        DomainCheck.objects.create(domain=self.domain, asked_at=timezone.now() + timedelta(days=1))
        self.mailbox, self.their_mailbox = world.mailbox("ann@acme.test"), world.mailbox("bob@beta.test")
        self.shop_password, self.their_password = (
            world.app_password(each)[0] for each in (self.mailbox, self.their_mailbox)
        )
        self.alias = world.alias("all@acme.test", "ann@acme.test")
        self.their_alias = world.alias("all@beta.test", "bob@beta.test")
        self.password, _secret = world.app_password(self.mailbox, "Phone", ("submission", "imap"))
        self.sign_in = world.login_event(self.mailbox, credential=self.password)
        self.sent = queue.message(self.acme, credential=self.password)
        queue.recipient(self.sent, "carl@elsewhere.test")
        self.message = queue.waiting(self.acme, "carl@elsewhere.test").message
        self.their_message = queue.waiting(self.beta, "carl@elsewhere.test").message
        self.accounts = {
            "viewer": self._member("viewer", self.acme, "viewer"),
            "admin": self._member("admin", self.acme, "admin"),
            "owner": self._member("owner", self.acme, "owner"),
            "linked owner": self._member("linked", self.acme, "owner"),
            "reseller": self._member("reseller", self.above, "owner"),
            "other tenant": self._member("other", self.beta, "owner"),
            "no tenant": self.account("none"),
            "closed": self._member("closed", self.acme, "owner"),
            "support": self.account("support", provider_role="support"),
            "operator": self.account("operator", provider_role="operator"),
            "support viewing": self.account("viewing", provider_role="support"),
            "person": self.mailbox.person,
        }
        User.objects.filter(pk=self.accounts["closed"].pk).update(is_active=False)
        main = self.mailbox.credentials.get(kind="main")
        self.tie = links.link(main, self.accounts["linked owner"], actor=None)
        self.invitation, self.token = self._invite(self.acme, "invited@elsewhere.test", "owner")
        self.their_invitation, _token = self._invite(self.beta, "other-invited@elsewhere.test", "other tenant")
        tokens: list[str] = []
        ask_recovery(
            self.mailbox, "ann@private.test", actor=self.mailbox.person,
            link=lambda token: f"/{tokens.append(token) or token}/",  # type: ignore[func-returns-value]
        )
        self.recovery = tokens[0]
        self._keys = {role: self._session(account) for role, account in self.accounts.items()}
        self._clients: dict[bool, Client] = {}
        self.visit = visits.begin(self.acme, reason="asked for help", actor=self.accounts["support viewing"])
        session = self.client("support viewing").session
        session[visits.VISIT] = self.visit.pk
        session.save()

    def named(self, *, theirs: bool = False) -> dict[str, Any]:
        """What an address of the console may hold: a row of Acme's, or in Acme's own address one of Beta's.

        Whoever adds an address with another name in it adds a row for it here.
        """
        viewer, other = (self.accounts[role].memberships.get() for role in ("viewer", "other tenant"))
        return {
            "tenant": self.acme.pk,
            "name": "x",  # of a session
            "tie": self.tie.pk,
            "domain": (self.theirs if theirs else self.domain).pk,
            "domain_alias": self.names[theirs].pk,
            "invitation": (self.their_invitation if theirs else self.invitation).pk,
            "token": self.token,
            "recovery": self.recovery,
            "member": (other if theirs else viewer).pk,
            "mailbox": (self.their_mailbox if theirs else self.mailbox).pk,
            "customer": self.customers[theirs].pk,
            "alias": (self.their_alias if theirs else self.alias).pk,
            "credential": (self.their_password if theirs else self.shop_password).pk,
            # Of the person of Acme's mailbox.
            "password": self.password.pk,
            "passkey": 0,
            "sign_in": self.sign_in.pk,
            "sent": self.sent.queue_id,
            "letter": "1790000000.M1.mail",
            "part": 0,
            "message": (self.their_message if theirs else self.message).queue_id,
        }

    def grow(self) -> None:
        """More of everything in Acme, some of it in trouble."""
        other = world.domain("acme-shop.test", self.acme, proof="pending")
        for number in range(8):
            world.domain_alias(f"old{number}.test", world.domain(f"old{number}.acme.test", self.acme, proof="lapsed"))
        world.alias("info@acme.test", "ann@acme.test")
        operations.suspend(world.mailbox("carl@acme.test"), reason="spam", actor=None)
        world.app_password(self.mailbox, frozen_at=timezone.now(), frozen_reason="stolen")
        Plan.objects.update(customers=None, for_customers=True)
        for number in range(8):
            world.domain(f"c{number}.test", world.tenant(f"Customer {number}", parent=self.acme, status=number % 3))
            world.tenant(f"Customer {number}", parent=self.customers[0])
            credential, _secret = world.app_password(self.mailbox, f"Phone {number}")
            world.login_event(self.mailbox, credential=credential, ip=f"192.0.2.{number}")
            sent = queue.message(self.acme, credential=credential)
            for name in ("x", "y"):
                queue.attempt(queue.recipient(sent, f"{name}{number}@elsewhere.test", state="waiting"))
            world.mailbox(f"m{number}@acme.test")
            self._member(f"more{number}", self.acme, "admin")
            self._invite(self.acme, f"invited{number}@elsewhere.test", "admin")
            queue.attempt(queue.waiting(self.acme, f"x{number}@elsewhere.test"))
            Recipient.objects.filter(pk=queue.waiting(self.acme, "info@acme.test").pk).update(
                resolved="ann@acme.test", recipient_tenant=self.acme
            )
            domains.change_domain(other, store="maildir" if number % 2 else "", actor=None)

    @staticmethod
    def account(name: str, **fields: Any) -> User:
        return operations.create_account(
            email=f"{name}@elsewhere.test", password=world.PASSWORD, actor=None, **fields
        )

    def _member(self, name: str, tenant: Tenant, role: str) -> User:
        account = self.account(name)
        tenants.create_membership(user=account, tenant=tenant, role=role, actor=None)
        return account

    def _invite(self, tenant: Tenant, email: str, by: str) -> tuple[Invitation, str]:
        """The invitation, and its link's token."""
        tokens: list[str] = []
        made = invitations.invite(
            tenant=tenant, email=email, role="viewer", actor=self.accounts[by],
            link=lambda token: f"/invitation/{tokens.append(token) or token}/",  # type: ignore[func-returns-value]
        )
        return made, tokens[0]

    def _session(self, account: User) -> str:
        client = Client()
        client.force_login(account, backend="django.contrib.auth.backends.ModelBackend")
        if account.kind == User.Kind.PERSON:
            session = client.session
            session[OPENED_BY] = passwords.fingerprint(account.mailbox.credentials.get(kind="main").secret)
            session.save()
        return client.cookies[settings.SESSION_COOKIE_NAME].value

    def client(self, role: str, *, enforce_csrf_checks: bool = False) -> Client:
        """The browser of this role. One serves all: a new one reads all static files again."""
        client = self._clients.setdefault(enforce_csrf_checks, Client(enforce_csrf_checks=enforce_csrf_checks))
        client.cookies.clear()
        if role in self._keys:
            client.cookies[settings.SESSION_COOKIE_NAME] = self._keys[role]
        return client
