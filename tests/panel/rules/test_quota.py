"""Whether a message finds room, what is said when not, and when a person is warned."""

import pytest

from panel.rules import quota
from panel.rules.addresses import parse_address
from panel.rules.facts import Delivery, LocalMailbox, Resolution, Verdict
from panel.rules.quota import Fit


def resolution(asked: str, *mailboxes: int, outside: bool = False) -> Resolution:
    deliveries = [
        Delivery(address, LocalMailbox(number, f"opaque{number}", 7, address, 1000))
        for number in mailboxes
        for address in [parse_address(f"box{number}@demo.test")]
    ]
    if outside:
        deliveries.append(Delivery(parse_address("bob@elsewhere.test"), None))
    return Resolution(parse_address(asked), Verdict.HERE, 7, tuple(deliveries))


@pytest.mark.parametrize(
    ("used", "size", "most", "expected"),
    [
        (0, 10, None, Fit.FITS),
        (10**15, 10, None, Fit.FITS),
        (0, 0, 100, Fit.FITS),
        (90, 10, 100, Fit.FITS),
        (91, 10, 100, Fit.FULL),
        (100, 0, 100, Fit.FULL),
        (150, 10, 100, Fit.FULL),
        (0, 101, 100, Fit.NEVER),
        (0, 100, 100, Fit.FITS),
        (0, 0, 0, Fit.FULL),
    ],
)
def test_fit(used, size, most, expected):
    assert quota.fit(used, size, most) is expected


def test_only_a_recipient_without_any_room_is_refused():
    alias = resolution("all@demo.test", 1, 2)
    refused = quota.recipient_refused(alias, {1: Fit.FULL, 2: Fit.FULL}, for_good=False)
    assert str(refused) == "452 4.2.2 the mailbox all@demo.test is full, try again later"
    assert quota.recipient_refused(alias, {1: Fit.FULL, 2: Fit.FITS}, for_good=False) is None
    assert quota.recipient_refused(alias, {1: Fit.FULL}, for_good=False) is None, "nothing is known of the other"
    assert quota.recipient_refused(resolution("a@demo.test", 1, outside=True), {1: Fit.FULL}, for_good=False) is None
    assert quota.recipient_refused(resolution("bob@elsewhere.test"), {}, for_good=False) is None


def test_refused_for_good_by_setting_or_when_it_never_fits():
    one = resolution("box1@demo.test", 1)
    assert str(quota.recipient_refused(one, {1: Fit.FULL}, for_good=True)).startswith("552 5.2.2 ")
    assert str(quota.recipient_refused(one, {1: Fit.NEVER}, for_good=False)).startswith("552 5.2.3 ")
    alias = resolution("all@demo.test", 1, 2)
    refused = quota.recipient_refused(alias, {1: Fit.FULL, 2: Fit.NEVER}, for_good=False)
    assert refused.code == 452, "the first of them takes it later"


def test_a_message_is_refused_only_when_nobody_has_room():
    one, two = resolution("box1@demo.test", 1), resolution("box2@demo.test", 2)
    assert quota.message_refused([one, two], {1: Fit.FULL, 2: Fit.FITS}, for_good=False) is None
    assert quota.message_refused([one, two], {1: Fit.NEVER, 2: Fit.FULL}, for_good=False).code == 452
    assert quota.message_refused([one, two], {1: Fit.NEVER, 2: Fit.NEVER}, for_good=False).code == 552
    assert quota.message_refused([], {}, for_good=False) is None


@pytest.mark.parametrize(
    ("used", "most", "level"),
    [(79, 100, 0), (80, 100, 80), (94, 100, 80), (95, 100, 95), (120, 100, 95), (10**12, None, 0), (5, 0, 0)],
)
def test_level(used, most, level):
    assert quota.level(used, most) == level


def test_percent_is_rounded_down():
    assert quota.percent(999, 1000) == 99
    assert quota.percent(5, 0) == 100
