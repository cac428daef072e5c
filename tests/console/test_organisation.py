"""Closing a tenant in the console, and who may undo it."""

import pytest
from django.test import Client
from django.utils import timezone

from panel.operations import services as operations
from panel.rules.status import Status
from panel.tenants import services as tenants
from panel.tenants.models import Tenant, User
from tests.support import world

pytestmark = pytest.mark.django_db


def owner(tenant: Tenant, name: str) -> tuple[User, Client]:
    account = User.objects.create(kind=User.Kind.PANEL, email=f"{name}@letters.test", password="!")
    tenants.create_membership(user=account, tenant=tenant, role="owner", actor=None)
    client = Client()
    client.force_login(account)
    return account, client


def status(tenant: Tenant) -> int:
    return Tenant.objects.get(pk=tenant.pk).status


def test_an_owner_closes_by_name_and_undoes_it_while_it_is_kept():
    acme = world.tenant("Acme")
    _, client = owner(acme, "ann")
    path = f"/t/{acme.pk}/settings/"
    wrong = client.post(f"{path}close/", {"name": "Acne", "reason": "moved"}).content.decode()
    assert "This is not its name" in wrong and 'value="moved"' in wrong and status(acme) == Status.ACTIVE
    client.post(f"{path}close/", {"name": "Acme"})
    assert status(acme) == Status.CLOSED
    page = client.get(path).content.decode()
    assert "Acme is closed." in page and "Undo the closing" in page and "Close…" not in page
    client.post(f"{path}undo-closing/")
    assert status(acme) == Status.ACTIVE
    client.post(f"{path}close/", {"name": "Acme"})
    Tenant.objects.filter(pk=acme.pk).update(grace_ends_at=timezone.now())
    client.post(f"{path}undo-closing/")
    assert status(acme) == Status.CLOSED


def test_what_the_provider_or_the_reseller_closed_is_not_the_customers_to_undo():
    above = world.tenant("Above")
    acme = world.tenant("Acme", parent=above)
    (_, client), (reseller, theirs) = owner(acme, "ann"), owner(above, "rita")
    staff = operations.create_account(
        email="staff@letters.test", password=world.PASSWORD, provider_role="operator", actor=None
    )
    path = f"/t/{acme.pk}/settings/"
    for closer in (staff, None, reseller):
        operations.close(acme, actor=closer)
        assert "Undo the closing" not in client.get(path).content.decode()
        said = client.post(f"{path}undo-closing/", follow=True).content.decode()
        assert status(acme) == Status.CLOSED, closer
        assert ("by somebody above it: ask" if closer is reseller else "by your provider: ask there") in said
        theirs.post(f"{path}undo-closing/")
        assert (status(acme) == Status.ACTIVE) == (closer is reseller)
        if closer is not reseller:
            operations.restore(acme, actor=staff)
