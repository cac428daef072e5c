"""Rings against a list of all that was ever charged, and reserve over several of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panel.rules.limits import (
    PACKED_BYTES,
    Charged,
    Kind,
    OverLimit,
    Rings,
    Subject,
    UnknownRings,
    Usage,
    Window,
    charge_facts,
    effective,
    reserve,
    summed,
    usage,
)

NOW_S = 1_795_000_000 // 86400 * 86400  # a midnight
LENGTH_S = {Window.HOUR: 3600, Window.DAY: 86400}
BUCKET_S = {Window.HOUR: 60, Window.DAY: 3600}

windows = st.sampled_from(Window)
# Seconds; mostly short steps, some that empty a bucket, a window, a ring.
steps = st.one_of(
    st.integers(0, 90), st.integers(0, 4000), st.integers(3000, 100_000), st.integers(0, 40 * 86400)
)
attempts = st.lists(st.tuples(steps, st.integers(1, 6)), max_size=60)


def replay(window, limit, tries, start_s=NOW_S):
    """Charge what fits, packing in between; give every try as (second, asked, taken) and the rings."""
    rings = Rings()
    tried = []
    now_s = start_s
    for step, asked in tries:
        now_s += step
        rings = Rings.of(rings.pack())
        taken = rings.allows(window, limit, asked, now_s)
        if taken:
            rings.charge(asked, now_s)
        tried.append((now_s, asked, taken))
    return tried, rings


def charged_between(tried, after_s, until_s):
    return sum(asked for at_s, asked, taken in tried if taken and after_s < at_s <= until_s)


@given(windows, st.integers(1, 12), attempts, st.integers(0, 86400))
@settings(max_examples=300, deadline=None)
def test_no_interval_of_the_windows_length_holds_more_than_the_limit(window, limit, tries, offset):
    tried, _ = replay(window, limit, tries, NOW_S + offset)
    for at_s, _, _ in tried:
        # Both ends included: the interval that a person with a calendar would count.
        assert charged_between(tried, at_s - LENGTH_S[window] - 1, at_s) <= limit


@given(windows, st.integers(1, 12), attempts, st.integers(0, 86400))
@settings(max_examples=300, deadline=None)
def test_nothing_is_refused_that_fits_but_for_one_bucket(window, limit, tries, offset):
    tried, _ = replay(window, limit, tries, NOW_S + offset)
    for index, (at_s, asked, taken) in enumerate(tried):
        if not taken:
            held = charged_between(tried[:index], at_s - LENGTH_S[window] - BUCKET_S[window], at_s)
            assert held + asked > limit


@given(windows, st.integers(1, 1000), st.integers(0, 86400))
def test_the_limit_is_reached_exactly(window, limit, offset):
    tried, _ = replay(window, limit, [(0, 1)] * (limit + 3), NOW_S + offset)
    assert sum(asked for _, asked, taken in tried if taken) == limit


@pytest.mark.parametrize("window", Window)
@pytest.mark.parametrize("offset", [0, 1, 59, 3599, 86399])
def test_a_charge_counts_through_its_window_and_at_most_one_bucket_longer(window, offset):
    rings = Rings()
    at_s = NOW_S + offset
    rings.charge(1, at_s)
    assert rings.count(window, at_s + LENGTH_S[window]) == 1
    assert rings.count(window, at_s + LENGTH_S[window] + BUCKET_S[window]) == 0


@given(windows, st.integers(1, 12), attempts, steps, st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_free_at_is_the_first_second_at_which_it_fits(window, limit, tries, step, asked):
    tried, rings = replay(window, limit, tries)
    now_s = (tried[-1][0] if tried else NOW_S) + step
    free_s = rings.free_at(window, limit, asked, now_s)
    if asked > limit:
        assert rings.count(window, free_s) == 0
    else:
        assert rings.allows(window, limit, asked, free_s)
        assert free_s == now_s or not rings.allows(window, limit, asked, free_s - 1)
    assert now_s <= free_s <= now_s + LENGTH_S[window] + BUCKET_S[window]


@given(windows, attempts, st.integers(-100 * 86400, -1))
@settings(max_examples=100, deadline=None)
def test_a_clock_that_runs_back_frees_nothing(window, tries, back):
    tried, rings = replay(window, 10**6, [*tries, (0, 1)])
    now_s = tried[-1][0]
    before = rings.count(window, now_s)
    assert rings.count(window, now_s + back) == before
    rings.charge(3, now_s + back)
    assert rings.count(window, now_s + back) == rings.count(window, now_s) == before + 3
    assert rings.free_at(window, before + 3, 1, now_s + back) > now_s


def test_a_clock_before_1970_is_taken_for_the_head():
    rings = Rings()
    rings.charge(2, -5.0)
    assert rings.count(Window.HOUR, -100) == 2


def test_fractions_of_a_second_don_t_matter():
    rings = Rings()
    rings.charge(1, NOW_S + 59.999)
    assert rings.count(Window.HOUR, NOW_S + 61 * 60 - 0.001) == 1
    assert rings.count(Window.HOUR, NOW_S + 61 * 60 + 0.001) == 0


def test_packed_rings_have_one_size_and_a_format_byte():
    assert PACKED_BYTES == 477
    rings = Rings()
    rings.charge(7, NOW_S)
    packed = rings.pack()
    assert len(packed) == PACKED_BYTES
    assert packed[0] == 1
    assert Rings.of(memoryview(packed)).pack() == packed


@pytest.mark.parametrize("raw", [None, b"", memoryview(b"")])
def test_nothing_stored_is_nothing_charged(raw):
    assert Rings.of(raw).count(Window.DAY, NOW_S) == 0


@pytest.mark.parametrize(
    "raw",
    [b"\x01", bytes([2]) + bytes(PACKED_BYTES - 1), bytes([1]) + bytes(PACKED_BYTES)],
    ids=["short", "other format", "long"],
)
def test_bytes_of_an_unknown_format_are_not_taken_for_nothing_charged(raw):
    with pytest.raises(UnknownRings):
        Rings.of(raw)


def test_a_slot_that_is_full_stays_full():
    rings = Rings()
    rings.charge(2**32 - 2, NOW_S)
    rings.charge(2**40, NOW_S)
    assert rings.count(Window.DAY, NOW_S) == 2**32 - 1
    assert Rings.of(rings.pack()).count(Window.HOUR, NOW_S) == 2**32 - 1


def test_a_charge_is_never_negative():
    with pytest.raises(ValueError, match="never taken back"):
        Rings().charge(-1, NOW_S)


# reserve


def subject(kind=Kind.MAILBOX, pk=1, **limits):
    held = tuple((Window(name), recipients) for name, recipients in limits.items())
    return Subject(kind, pk, f"{kind.name.lower()}{pk}", held)


def packed(rings):
    return {key: each.pack() for key, each in rings.items()}


def test_a_message_is_charged_to_all_of_its_subjects():
    mailbox, tenant = subject(hour=10, day=20), subject(Kind.TENANT, 5)
    rings = {}
    assert reserve(rings, [(mailbox, 3), (tenant, 4)], NOW_S) == (
        Charged(Kind.MAILBOX, 1, "mailbox1", Window.HOUR, 3, 10),
        Charged(Kind.MAILBOX, 1, "mailbox1", Window.DAY, 3, 20),
    )
    assert rings[mailbox.key].count(Window.HOUR, NOW_S) == 3
    assert rings[tenant.key].count(Window.DAY, NOW_S) == 4


def test_a_refused_message_changes_nothing():
    mailbox, tenant = subject(hour=10), subject(Kind.TENANT, 5, hour=2)
    rings = {}
    reserve(rings, [(mailbox, 1), (tenant, 1)], NOW_S)
    before = packed(rings)
    charges = [(mailbox, 2), (subject(Kind.DOMAIN, 8), 2), (tenant, 2)]
    assert isinstance(reserve(rings, charges, NOW_S + 60), OverLimit)
    assert packed(rings) == before


def test_of_two_refusals_the_one_that_is_free_last_is_told():
    mailbox = subject(hour=2, day=2)
    rings = {}
    reserve(rings, [(mailbox, 2)], NOW_S)
    over = reserve(rings, [(mailbox, 1)], NOW_S + 30)
    assert over == OverLimit(mailbox, Window.DAY, 2, 1, NOW_S + 25 * 3600, NOW_S + 30)
    assert not over.never


def test_a_message_larger_than_a_limit_is_never_free_and_told_first():
    mailbox, tenant = subject(day=4), subject(Kind.TENANT, 5, hour=3)
    rings = {}
    reserve(rings, [(mailbox, 4)], NOW_S)
    over = reserve(rings, [(mailbox, 4), (tenant, 4)], NOW_S)
    assert over.subject == tenant
    assert over.never


def test_one_subject_named_twice_is_charged_once_with_the_sum():
    mailbox = subject(hour=5)
    rings = {}
    assert isinstance(reserve(rings, [(mailbox, 3), (mailbox, 3)], NOW_S), OverLimit)
    assert not rings
    assert [one.used_after for one in reserve(rings, [(mailbox, 3), (mailbox, 2)], NOW_S)] == [5]


def test_a_charge_of_none_is_no_charge():
    mailbox = subject(hour=0)
    rings = {}
    assert reserve(rings, [(mailbox, 0)], NOW_S) == ()
    assert not rings


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2000), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=4)
        ),
        max_size=30,
    )
)
@settings(max_examples=100, deadline=None)
def test_every_message_is_charged_whole_or_not_at_all(messages):
    subjects = [subject(hour=5, day=9), subject(Kind.DOMAIN, 2, day=8), subject(Kind.TENANT, 3, hour=6)]
    rings = {}
    taken = []
    now_s = NOW_S
    for step, charges in messages:
        now_s += step
        asked = [(subjects[index], n) for index, n in charges]
        if not isinstance(reserve(rings, asked, now_s), OverLimit):
            taken.extend((now_s, each.key, n) for each, n in asked)
    for each in subjects:
        for window, limit in each.limits:
            for end_s, _, _ in taken:
                start_s = end_s - LENGTH_S[window]
                inside = [n for at_s, key, n in taken if key == each.key and start_s <= at_s <= end_s]
                assert sum(inside) <= limit
        counted = rings[each.key].count(Window.HOUR, now_s) if each.key in rings else 0
        assert counted <= sum(n for at_s, key, n in taken if key == each.key and at_s > now_s - 3660)


def test_what_was_charged_reads_well_and_fits_json():
    charged = Charged(Kind.MAILBOX, 1, "shop@demo.test", Window.HOUR, 12, 200)
    assert str(charged) == "shop@demo.test 12/200 in 1 h"
    assert charge_facts([charged]) == [
        {"kind": "mailbox", "id": 1, "name": "shop@demo.test", "window": "hour", "used": 12, "allowed": 200}
    ]


def test_usage_says_what_is_used_and_free_next():
    rings = Rings()
    rings.charge(3, NOW_S)
    rings.charge(4, NOW_S + 90 * 60)
    assert usage(rings.pack(), NOW_S + 91 * 60) == (
        Usage(Window.HOUR, 4, 4, NOW_S + (90 + 61) * 60),
        Usage(Window.DAY, 7, 3, NOW_S + 25 * 3600),
    )


def test_usage_of_what_was_never_charged_is_nothing():
    assert usage(None, NOW_S) == (Usage(Window.HOUR, 0), Usage(Window.DAY, 0))


@given(st.lists(attempts, max_size=4), st.integers(-40 * 86400, 40 * 86400))
@settings(max_examples=60, deadline=None)
def test_many_are_summed_as_each_is_counted(many, later_s):
    raws, expected, now_s = [None, b"?"], [(0, 0), (0, 0)], NOW_S + later_s
    for tries in many:
        rings = Rings()
        at_s = NOW_S
        for step, asked in tries:
            at_s += step
            rings.charge(asked, at_s)
        total = sum(rings.by_day(30, now_s))
        raws.append(rings.pack())
        expected.append((total, rings.count(Window.DAY, now_s) if total else 0))
    assert list(summed(raws, 30, now_s)) == expected


@pytest.mark.parametrize(
    ("own", "inherited", "expected"),
    [
        ({}, {}, ()),
        ({}, {Window.HOUR: 200}, ((Window.HOUR, 200),)),
        ({Window.HOUR: 5}, {Window.HOUR: 200, Window.DAY: 1000}, ((Window.HOUR, 5), (Window.DAY, 1000))),
        ({Window.HOUR: None}, {Window.HOUR: 200, Window.DAY: 1000}, ((Window.DAY, 1000),)),
        ({Window.DAY: 0}, {Window.HOUR: None}, ((Window.DAY, 0),)),
    ],
)
def test_inherit_and_unlimited_are_told_apart(own, inherited, expected):
    assert effective(own, inherited) == expected
