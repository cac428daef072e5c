"""How Dovecot is asked to end sessions, and what it may answer."""

from pathlib import Path

import pytest

from mailserver import doveadm
from mailserver.doveadm import KickFailed
from tests.support.doveadm import DONE, GREETING, doveadm_on

pytestmark = pytest.mark.once("sqlite")

SHOP, OFFICE = "shop@demo.test", "office@demo.test"


async def test_each_user_is_kicked_with_the_name_escaped(tmp_path: Path):
    async with doveadm_on(tmp_path / "s") as dovecot:
        await doveadm.kick(tmp_path / "s", [SHOP, "tab\t@demo.test"])
        assert dovecot.asked == [b"\t\tkick\tshop@demo.test\n", b"\t\tkick\ttab\x01t@demo.test\n"]


@pytest.mark.parametrize("answer", [b"shop@demo.test\t\n+\n", b"3\t\n+\n", b"\n+\n", b"\n-NOTFOUND\n", b"+\n"])
async def test_what_2_3_and_2_4_answer_is_understood(tmp_path: Path, answer: bytes):
    async with doveadm_on(tmp_path / "s") as dovecot:
        dovecot.answer = answer
        await doveadm.kick(tmp_path / "s", [SHOP, OFFICE])
        assert len(dovecot.asked) == 2


@pytest.mark.parametrize(
    ("greeting", "answer"),
    [
        (b"-\n", DONE), (b"220 SMTP\n", DONE), (GREETING, b"-NOAUTH\n"), (GREETING, b"x" * 70_000),
        (GREETING, b"3\t\n-\n"),
    ],
)
async def test_what_is_no_success_is_a_failure(tmp_path: Path, greeting: bytes, answer: bytes):
    async with doveadm_on(tmp_path / "s") as dovecot:
        dovecot.greeting, dovecot.answer = greeting, answer
        with pytest.raises(KickFailed):
            await doveadm.kick(tmp_path / "s", [SHOP])


async def test_a_dovecot_that_is_away_or_hangs_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(KickFailed, match="out of reach"):
        await doveadm.kick(tmp_path / "s", [SHOP])
    monkeypatch.setattr(doveadm, "DEADLINE_S", 0.05)
    async with doveadm_on(tmp_path / "s") as dovecot:
        dovecot.answer = b""
        with pytest.raises(KickFailed, match="doesn't answer"):
            await doveadm.kick(tmp_path / "s", [SHOP])
