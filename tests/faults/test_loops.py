"""Mail that goes round in circles is stopped, and somebody learns of it once."""

import smtplib
from collections.abc import Iterator

import pytest

from tests.support.installation import Installation, Template, message, until


@pytest.fixture
def two(template: Template, tmp_path) -> Iterator[tuple[Installation, Installation]]:
    """Two servers, x@one.test and x@two.test, whose aliases lead to each other."""
    made = [Installation(template, tmp_path / name, hostname=f"mx.{name}.test") for name in ("one", "two")]
    try:
        for here, there, name, other in ((*made, "one", "two"), (*made[::-1], "two", "one")):
            here.run(
                f"world.domain('{name}.test', world.tenant('{name}'))\nworld.mailbox('ann@{name}.test')\n"
                f"world.alias('x@{name}.test', 'x@{other}.test')\n"
            )
            here.manage("route", "set", f"{other}.test", f"smtp://127.0.0.1:{there.mx}")
            here.start()
        yield made[0], made[1]
    finally:
        for each in made:
            each.kill()


def ends(installations: tuple[Installation, ...]) -> list[tuple[str, int, str]]:
    """State, hold and last reply of all that did not just go on to the other server."""
    return [
        row
        for each in installations
        for row in each.query("SELECT state, holds, last_reply FROM sending_recipient WHERE state <> 'delivered'")
    ]


@pytest.mark.once("sqlite")
def test_two_servers_that_forward_to_each_other_are_stopped_by_the_count_of_hops(two):
    one, two_ = two
    with smtplib.SMTP("127.0.0.1", one.mx) as outside:
        outside.sendmail("carol@third.test", ["x@one.test"], message("carol@third.test", "x@one.test", "Round"))
    # What went on to the other server is written as delivered a moment after that one had it.
    until(lambda: [holds for _, holds, _ in ends(two)] == [2], within_s=60, what="the end of the loop")
    [(state, holds, reply)] = ends(two)
    assert (state, holds) == ("waiting", 2), "held as undeliverable, for the provider to see"
    assert reply.startswith("554 5.4.6"), reply
    rounds = sum(each.query("SELECT COUNT(*) FROM sending_message")[0][0] for each in two)
    assert 40 <= rounds <= 60, "about as many as Received fields are allowed"
    for each, name in ((one, "one"), (two_, "two")):
        assert each.inbox(f"ann@{name}.test").files() == []


def test_aliases_in_a_circle_are_refused_when_made_and_at_rcpt(installation):
    installation.run(
        "world.alias('a@demo.test', 'b@demo.test')\nworld.alias('b@demo.test', 'a@demo.test')\n"
        "world.alias('self@demo.test', 'self@demo.test')\n"
    )
    installation.manage("alias", "create", "c@demo.test", "office@demo.test")
    installation.start()
    with smtplib.SMTP("127.0.0.1", installation.mx) as outside:
        outside.ehlo()
        outside.mail("carol@third.test")
        for circular in ("a@demo.test", "b@demo.test", "self@demo.test"):
            code, text = outside.rcpt(circular)
            assert (code, text.split()[0]) == (550, b"5.4.6")
        assert outside.rcpt("c@demo.test")[0] == 250
    with pytest.raises(AssertionError, match=r"d@demo\.test"):
        installation.manage("alias", "create", "d@demo.test", "d@demo.test")
    with pytest.raises(AssertionError, match=r"e@demo\.test|f@demo\.test"):
        installation.manage("alias", "create", "e@demo.test", "f@demo.test")
        installation.manage("alias", "create", "f@demo.test", "e@demo.test")
