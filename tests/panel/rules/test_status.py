"""The table of DESIGN §4."""

import pytest

from panel.rules.status import Status, strictest


@pytest.mark.parametrize(
    ("status", "logs_in", "sends", "receives"),
    [
        (Status.ACTIVE, True, True, True),
        (Status.NO_SENDING, True, False, True),
        (Status.SUSPENDED, False, False, True),
        (Status.CLOSED, False, False, False),
    ],
)
def test_each_status_allows_what_the_table_says(status, logs_in, sends, receives):
    assert (status.may_log_in, status.may_send, status.may_receive) == (logs_in, sends, receives)


def test_the_strictest_holds():
    assert strictest([Status.ACTIVE, Status.SUSPENDED, Status.NO_SENDING]) is Status.SUSPENDED
    assert strictest(iter([0, 1])) is Status.NO_SENDING


def test_a_status_reads_as_words():
    assert [status.words for status in Status] == ["active", "no sending", "suspended", "closed"]
