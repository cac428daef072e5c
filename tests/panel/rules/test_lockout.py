"""Lockouts against a list of all that was ever wrong: what they count, whom they stop, what they keep."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panel.rules.lockout import MOST_GUESSES, WINDOW_S, Guesses, Lock, Lockouts, network_of

HERE, THERE = "192.0.2.7", "198.51.100.9"
EACH = MOST_GUESSES[Lock.ACCOUNT_FROM_NETWORK]


def digest(text: object) -> bytes:
    return hashlib.sha256(str(text).encode()).digest()


ANN, BOB = digest("ann@demo.test"), digest("bob@demo.test")


def guess(lockouts: Lockouts, account: bytes, ip: str, count: int, start: int = 0, now_s: float = 0) -> None:
    for number in range(start, start + count):
        lockouts.failed(account, ip, digest((account, number)), now_s)


# Networks


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", ""),
        ("127.8.8.8", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("", ""),
        ("no address", ""),
    ],
)
def test_network_is_an_address_or_a_64(ip: str, network: str):
    assert network_of(ip) == network


# Who is stopped


def test_account_is_locked_for_the_network_that_guesses_and_for_no_other():
    lockouts = Lockouts()
    guess(lockouts, ANN, HERE, EACH - 1)
    assert lockouts.locked(ANN, HERE, 0) is None
    assert lockouts.failed(ANN, HERE, b"last", 0) == [Lock.ACCOUNT_FROM_NETWORK]
    assert lockouts.locked(ANN, HERE, 0) is Lock.ACCOUNT_FROM_NETWORK
    assert not Lock.ACCOUNT_FROM_NETWORK.spares_known
    assert lockouts.locked(ANN, THERE, 0) is None
    assert lockouts.locked(BOB, HERE, 0) is None


def test_network_that_tries_many_accounts_is_locked_for_all_but_those_that_know_it():
    lockouts = Lockouts()
    for number in range(MOST_GUESSES[Lock.NETWORK]):
        assert lockouts.locked(BOB, HERE, 0) is None
        began = lockouts.failed(digest(number), HERE, digest(("x", number)), 0)
    assert began == [Lock.NETWORK]
    assert lockouts.locked(BOB, HERE, 0) is Lock.NETWORK
    assert Lock.NETWORK.spares_known
    assert lockouts.locked(BOB, THERE, 0) is None


def test_neighbours_in_one_64_are_one_network():
    lockouts = Lockouts()
    for number in range(EACH):
        lockouts.failed(ANN, f"2001:db8::{number:x}", digest(number), 0)
    assert lockouts.locked(ANN, "2001:db8::abcd", 0) is Lock.ACCOUNT_FROM_NETWORK
    assert lockouts.locked(ANN, "2001:db8:0:1::1", 0) is None


def test_account_that_the_world_guesses_at_is_locked_for_all_but_known_networks():
    lockouts = Lockouts()
    for number in range(MOST_GUESSES[Lock.ACCOUNT]):
        assert lockouts.locked(ANN, THERE, 0) is None
        lockouts.failed(ANN, f"203.0.113.{number}", digest(number), 0)
    assert lockouts.locked(ANN, THERE, 0) is Lock.ACCOUNT
    assert Lock.ACCOUNT.spares_known
    assert lockouts.locked(BOB, "203.0.113.1", 0) is None


def test_lock_without_exceptions_is_named_first():
    lockouts = Lockouts()
    guess(lockouts, ANN, HERE, MOST_GUESSES[Lock.NETWORK])
    assert lockouts.locked(BOB, HERE, 0) is Lock.NETWORK
    assert lockouts.locked(ANN, HERE, 0) is Lock.ACCOUNT_FROM_NETWORK


def test_this_machine_is_nobody_s_network():
    lockouts = Lockouts()
    for number in range(200):
        lockouts.failed(digest(number), "127.0.0.1", digest(("x", number)), 0)
    assert lockouts.locked(ANN, "127.0.0.1", 0) is None
    guess(lockouts, ANN, "127.0.0.1", EACH)
    assert lockouts.locked(ANN, "::1", 0) is Lock.ACCOUNT_FROM_NETWORK


# What counts


def test_same_password_again_counts_once():
    lockouts = Lockouts()
    for second in range(WINDOW_S):
        lockouts.failed(ANN, HERE, b"the old one", second)
        assert lockouts.locked(ANN, HERE, second) is None


def test_same_password_for_many_accounts_counts_each_time_for_their_network():
    lockouts = Lockouts()
    for number in range(MOST_GUESSES[Lock.NETWORK]):
        lockouts.failed(digest(number), HERE, digest((number, "123456")), 0)
    assert lockouts.locked(ANN, HERE, 0) is Lock.NETWORK


def test_lock_ends_by_itself_as_its_guesses_leave_the_window():
    lockouts = Lockouts()
    for number in range(EACH):
        lockouts.failed(ANN, HERE, digest(number), number)
    assert lockouts.locked(ANN, HERE, WINDOW_S - 1) is Lock.ACCOUNT_FROM_NETWORK
    assert lockouts.locked(ANN, HERE, WINDOW_S) is None
    assert lockouts.failed(ANN, HERE, b"one more", WINDOW_S) == [Lock.ACCOUNT_FROM_NETWORK]


steps = st.one_of(st.integers(0, 30), st.integers(0, WINDOW_S + 5))
tries = st.lists(st.tuples(steps, st.integers(0, 40)), max_size=120)


@given(tries, st.integers(1, 12))
def test_no_window_holds_more_than_the_limit_when_it_is_asked_first(tried: list[tuple[int, int]], limit: int):
    guesses, counted, now_s = Guesses(limit), [], 0
    for step, number in tried:
        now_s += step
        recent = [(at, each) for at, each in counted if at + WINDOW_S > now_s]
        full = guesses.is_full(b"key", now_s)
        assert full is (len(recent) >= limit)
        if full:
            continue
        began = guesses.add(b"key", digest(number), now_s)
        is_new = number not in {each for _, each in recent}
        assert began is (is_new and len(recent) + 1 == limit)
        if is_new:
            counted.append((now_s, number))


@given(tries)
def test_quiet_window_opens_every_lock(tried: list[tuple[int, int]]):
    lockouts, now_s = Lockouts(), 0
    for step, number in tried:
        now_s += step
        lockouts.failed(ANN, HERE, digest(number), now_s)
    assert lockouts.locked(ANN, HERE, now_s + WINDOW_S) is None
    assert lockouts.locked(ANN, THERE, now_s) in (None, Lock.ACCOUNT)
    assert lockouts.locked(BOB, THERE, now_s) is None


# What is kept


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 300), st.integers(0, 99)), max_size=200))
def test_never_more_is_kept_than_the_bounds(added: list[tuple[int, int, int]]):
    guesses, now_s = Guesses(limit=5, most=20), 0
    for key, step, number in added:
        now_s += step
        guesses.add(digest(key), digest(number), now_s)
        assert len(guesses) <= 20
        assert all(1 <= len(each) <= 5 for each in guesses._guesses.values())


def test_several_under_way_at_once_keep_the_newest():
    guesses = Guesses(limit=3)
    for second in range(6):
        guesses.add(b"key", digest(second), second)
    assert guesses.is_full(b"key", 2 + WINDOW_S) is True
    assert guesses.is_full(b"key", 3 + WINDOW_S) is False


def test_attack_that_is_over_leaves_nothing_behind():
    guesses = Guesses(limit=3)
    for number in range(1000):
        guesses.add(digest(number), b"x", 0)
    for number in range(1000):
        guesses.add(b"one", digest(number), WINDOW_S + number)
    assert len(guesses) == 1
