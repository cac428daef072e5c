"""A house of tenants and everybody who may knock, built once a module."""

import pytest


@pytest.fixture(scope="module")
def house(django_db_setup, django_db_blocker):
    """For a module that changes nothing for good; it puts its own `_django_db_helper` in pytest-django's place."""
    from django.db import transaction

    from tests.support.console import House

    with django_db_blocker.unblock(), transaction.atomic():
        yield House()
        transaction.set_rollback(True)
