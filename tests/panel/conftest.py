"""Worlds for the tests of the panel's services. Django isn't ready when this is read: imports are inside."""

import threading

import pytest


@pytest.fixture
def tenant(db):
    from tests.support import world

    return world.tenant("Demo")


@pytest.fixture
def other_tenant(db):
    from tests.support import world

    return world.tenant("Other")


@pytest.fixture
def domain(tenant):
    from tests.support import world

    return world.domain("demo.test", tenant)


@pytest.fixture
def shared(db):
    from tests.support import world

    return world.domain("isp.test")


@pytest.fixture
def mailbox(domain):
    from tests.support import world

    return world.mailbox("shop@demo.test")


@pytest.fixture
def its_proof(settings):
    """Called with a domain: the DNS has the record that proves it. No other DNS is asked for anything."""
    from dataclasses import replace

    from panel.domains.checks import token
    from tests.support.dns import dns_server

    with dns_server() as dns:
        settings.ENVIRONMENT = replace(settings.ENVIRONMENT, dns=dns.listen)
        yield lambda domain: dns.zone(
            domain.name, f'_posthouse TXT "posthouse-proof={token(domain.name, domain.tenant)}"\n'
        )


@pytest.fixture
def traces(db):
    """Called by a test after its world is made: what services leave behind from then on."""
    from tests.support.traces import Traces

    return Traces


@pytest.fixture
def standard_plan(transactional_db):
    """The seeded plan, also after a test that emptied the tables."""
    from panel.tenants.models import Plan

    numbers = {"mailbox_hour": 200, "mailbox_day": 1000, "tenant_hour": 2000, "tenant_day": 10000}
    return Plan.objects.get_or_create(name="Standard", defaults=numbers)[0]


@pytest.fixture
def in_threads():
    """Calls a function in a thread for each argument, all at once; gives the results and errors."""
    from django.db import connections

    def run(function, *arguments):
        start = threading.Barrier(len(arguments))
        results = [None] * len(arguments)

        def one(at):
            try:
                start.wait(10)
                results[at] = function(arguments[at])
            except Exception as error:
                results[at] = error
            finally:
                connections.close_all()

        threads = [threading.Thread(target=one, args=(at,)) for at in range(len(arguments))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return results

    return run


@pytest.fixture(scope="module")
def standing(django_db_setup, django_db_blocker):
    """A world with every kind of row and everybody in it, built once for a module that changes nothing for good.

    The module puts a `_django_db_helper` of its own in place of pytest-django's.
    """
    from django.db import transaction

    from tests.panel.test_admin_generated import CASES, House
    from tests.support.standing import Standing

    with django_db_blocker.unblock(), transaction.atomic():
        yield Standing(House(), CASES)
        transaction.set_rollback(True)
