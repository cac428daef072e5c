"""The simple rules of mailboxes on a running mailserver: vacation, forward, junk, block."""

import smtplib

from tests.support.installation import Installation, until

SHOP, OFFICE = "shop@demo.test", "office@demo.test"
AWAY = "vacation=True, vacation_text='Zurück am Montag.', vacation_subject='Nicht da'"


def rules(posthouse: Installation, address: str, settings: str) -> None:
    local_part, _, domain = address.partition("@")
    posthouse.run(
        f"world.rules(Mailbox.objects.get(address__local_part={local_part!r}, address__domain__name={domain!r}),"
        f" {settings})"
    )


def states(posthouse: Installation) -> list[tuple[str, ...]]:
    return posthouse.query(
        "SELECT m.direction, r.original, r.state FROM sending_recipient r"
        " JOIN sending_message m ON m.id = r.message_id ORDER BY r.id"
    )


def from_outside(posthouse: Installation, recipient: str, raw: bytes, sender: str = "bob@elsewhere.test") -> None:
    with smtplib.SMTP("127.0.0.1", posthouse.mx, timeout=30) as client:
        client.sendmail(sender, [recipient], raw)


def test_two_who_are_away_answer_each_other_once_and_never_loop(installation):
    for address in (SHOP, OFFICE):
        rules(installation, address, AWAY)
    installation.start()
    installation.send(SHOP, OFFICE, subject="Coming over?")
    shop, office = installation.inbox(SHOP), installation.inbox(OFFICE)
    shop.wait()
    installation.send(SHOP, OFFICE, subject="Still there?")
    installation.send(OFFICE, SHOP, subject="The other way")
    office.wait(3)
    until(lambda: len(states(installation)) == 5 and all(row[2] == "delivered" for row in states(installation)))
    assert sorted(row[0] for row in states(installation)) == ["answer"] * 2 + ["submission"] * 3
    answer = next(each for each in shop.messages() if each["Auto-Submitted"])
    assert answer["Return-Path"] == "<>"
    assert answer["Subject"] == "Nicht da"
    assert answer["In-Reply-To"] == answer["References"] == "<Coming-over?@client.test>"
    assert answer["Auto-Submitted"] == "auto-replied"
    assert answer.get_payload(decode=True).decode() == "Zurück am Montag.\r\n"
    assert (len(shop.files()), len(office.files())) == (2, 3)
