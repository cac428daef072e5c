"""The worker's step for what was closed: bounced first, then removed from disk and database, and told in the log."""

import logging
import ssl
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from mailserver import spool
from mailserver.clock import Clock
from mailserver.worker import Worker
from panel.mailboxes.models import Mailbox
from panel.rules.status import Status
from panel.sending.models import Hold
from panel.tenants.models import Plan
from tests.support import letters, queue, world
from tests.support.database import database_gone


@pytest.fixture
def worker(tmp_path):
    config = letters.config(tmp_path)
    config.run.mkdir(parents=True)
    made = Worker(config, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Clock(), node=1, number=0, of_ids=1)
    yield made
    made.executor.shutdown()


def test_what_a_closed_mailbox_left_bounces_and_then_its_mail_goes(db, worker, monkeypatch, caplog):
    Plan.objects.get_or_create(name="Standard")
    tenant = world.tenant("Demo")
    world.domain("demo.test", tenant)
    mailbox = world.mailbox("shop@demo.test")
    letter = worker.config.maildir(mailbox.opaque_id) / "new" / "1.R1.host,S=3"
    letter.parent.mkdir(parents=True)
    letter.write_bytes(b"hi\n")
    waiting = queue.waiting(tenant, "a@elsewhere.test", holds=Hold.SUSPENDED)
    Mailbox.objects.update(status=Status.CLOSED, grace_ends_at=timezone.now() - timedelta(hours=1))
    woken = []
    monkeypatch.setattr(worker.runner, "wake", lambda: woken.append(True))
    caplog.set_level(logging.INFO, logger="posthouse")

    worker.end_grace()
    waiting.refresh_from_db()
    assert waiting.holds == 0 and woken == [True] and letter.exists()

    type(waiting).objects.update(state="failed")
    worker.end_grace()
    assert woken == [True] and not letter.exists() and not Mailbox.objects.exists()
    assert 'removed what="the mailbox shop@demo.test"' in caplog.text


def test_the_step_is_put_off_while_the_database_is_gone(transactional_db, worker, cluster, monkeypatch):
    with database_gone(cluster, monkeypatch), pytest.raises(spool.SpoolUnavailable):
        worker.end_grace()
    connections.close_all()
    worker.end_grace()
