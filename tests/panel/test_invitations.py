"""An invitation that two use at once; what else they do is in tests/console/test_people.py."""

import pytest

from panel.operations import invitations
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError
from panel.tenants.models import User
from tests.support import world

pytestmark = pytest.mark.django_db


@pytest.mark.usefixtures("standard_plan")
def test_of_two_that_use_one_link_at_once_one_joins(in_threads):
    acme, tokens = world.tenant("Acme"), []
    owner = User.objects.create(kind=User.Kind.PANEL, email="ann@letters.test", password="!")
    tenants.create_membership(user=owner, tenant=acme, role="owner", actor=None)
    invitations.invite(
        tenant=acme, email="new@letters.test", role="viewer", actor=owner,
        link=lambda token: tokens.append(token) or f"/{token}/",
    )
    joined = in_threads(
        lambda number: invitations.accept_as_new(tokens[0], f"unusual password number {number}", ip=None), *range(3)
    )
    assert sum(isinstance(each, tuple) for each in joined) == 1 and acme.memberships.count() == 2
    assert sum(isinstance(each, ServiceError) for each in joined) == 2, joined
