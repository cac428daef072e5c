"""How a domain's proof is won, missed and lost, and how often it is looked at."""

from datetime import UTC, datetime, timedelta

import pytest

from panel.rules import domain_life
from panel.rules.domain_life import GRACE, Life
from panel.rules.facts import Proof

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ACTIVE = Life(Proof.PROVED)
WARNED = Life(Proof.PROVED, NOW - timedelta(days=1))
PENDING, LAPSED = Life(Proof.PENDING), Life(Proof.LAPSED)


@pytest.mark.parametrize(("life", "proof_found", "mx_is_ours", "after"), [
    (PENDING, True, False, ACTIVE),
    (PENDING, False, True, PENDING),  # others may lead their MX here
    (PENDING, None, None, PENDING),
    (ACTIVE, False, True, ACTIVE),
    (ACTIVE, False, False, Life(Proof.PROVED, NOW)),
    (ACTIVE, None, False, ACTIVE),
    (ACTIVE, False, None, ACTIVE),
    (WARNED, False, False, WARNED),
    (WARNED, True, False, ACTIVE),
    (WARNED, False, True, ACTIVE),
    (WARNED, None, None, WARNED),
    (Life(Proof.PROVED, NOW - GRACE), False, False, LAPSED),
    (Life(Proof.PROVED, NOW - 2 * GRACE), None, None, Life(Proof.PROVED, NOW - 2 * GRACE)),
    (LAPSED, False, False, LAPSED),
    (LAPSED, False, True, LAPSED),
    (LAPSED, True, False, ACTIVE),
])
def test_a_look_moves_the_life_on(life, proof_found, mx_is_ours, after):
    assert domain_life.step(
        life, by_record=True, proof_found=proof_found, mx_is_ours=mx_is_ours, now=NOW
    ) == after


def test_what_the_provider_checked_never_lapses_by_itself():
    old = Life(Proof.PROVED)
    assert domain_life.step(old, by_record=False, proof_found=None, mx_is_ours=False, now=NOW) == old


def test_words_and_the_end_of_a_warning():
    assert [life.word for life in (PENDING, ACTIVE, WARNED, LAPSED)] == ["pending", "active", "warning", "suspended"]
    assert WARNED.ends_at == NOW + timedelta(days=6)
    assert ACTIVE.ends_at is None and LAPSED.ends_at is None


def test_how_often_it_is_looked_at():
    def minutes(life, days=0.0, answered=True):
        return domain_life.next_look_s(life, age=timedelta(days=days), answered=answered, jitter=0.5) / 60

    assert [minutes(PENDING, days) for days in (0, 2, 30)] == [5, 60, 24 * 60]
    assert [minutes(ACTIVE), minutes(WARNED), minutes(LAPSED)] == [24 * 60, 60, 60]
    assert minutes(ACTIVE, answered=False) == 30
