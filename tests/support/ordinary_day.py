"""An ordinary day at Acme, for pictures of the pages: what they show when people and mail come and go.

Names are of the test's domains; numbers, states and times are such as an installation has. Always the same.
"""

from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

from django.utils import timezone

from panel.domains import checks
from panel.domains import services as domains
from panel.domains.models import Domain, DomainCheck
from panel.mailboxes import services as mailboxes
from panel.mailboxes.models import Credential, LoginEvent, Mailbox, MailboxUsage
from panel.operations import services as operations
from panel.operations.models import Node
from panel.rules.limits import Kind, Rings
from panel.sending.models import Counter, Message, Recipient
from panel.sending.services import set_limit
from panel.tenants.models import PanelSession
from tests.support import queue, world
from tests.support.console import House

GB = 1 << 30
LAPTOP = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Safari/604.1"
PEOPLE = (  # local part, name, bytes of the quota's, sent in 24 hours
    ("ben", "Ben Archer", 1.2, 41), ("office", "Office", 4.7, 18), ("shop", "Web shop", 0.2, 212),
    ("dora", "Dora Brook", 3.1, 7), ("finn", "Finn Carter", 0.0, 0), ("accounts", "Accounts payable", 2.2, 12),
)
GREYLISTED = "451 4.7.1 Greylisted, please try again later"
NEWS = """<table width="560" cellpadding="12" style="border: 1px solid #ddd; font-family: Georgia, serif"><tr><td>
<h1 style="color: #7a1f3d">Spring catalogue</h1>
<img src="https://uni.test/cover.png" alt="The cover" width="200" height="90">
<p>Forty new books, and one of them is about <a href="https://uni.test/horns">post horns</a>.</p>
<p style="color: #666">You get this because you asked for it.</p></td></tr></table>"""
SENT = (  # subject, to, state, the remote's answer
    ("Invoice 4711", "bob@partner.test", "delivered", "250 2.0.0 OK 1xyz"),
    ("Minutes of Monday's meeting", "carl@elsewhere.test", "waiting", GREYLISTED),
    ("Your order 1024 is on its way", "kim@slow.test", "delivered", "250 2.0.0 Ok: queued as 4F1C2"),
    ("Offer for the spring catalogue", "nobody@gone.test", "failed", "550 5.1.1 No mailbox here by that name"),
    ("Re: Delivery on Thursday", "lea@uni.test", "delivered", "250 2.0.0 OK"),
    ("Newsletter, March", "max@partner.test", "waiting", "421 4.7.28 Unusual rate of mail from your address"),
    ("Photos from the fair", "otto@elsewhere.test", "delivered", "250 OK id=1qX"),
    ("", "hugo@uni.test", "discarded", ""),
)


def furnish(house: House, data: Path) -> None:
    """Rows of each kind in Acme, and letters for Ann under `data`, the data folder."""
    owner = house.accounts["owner"]
    operations.change_account(owner, name="Olivia Grant", actor=None)
    _domains(house)
    _mailboxes(house)
    _mail(house)
    _sign_ins(house)
    _letters(house.mailbox, data)
    now = timezone.now()
    Node.objects.create(number=1, name="mx1.posthouse.test", version="1.0", started_at=now, last_seen_at=now)


def _domains(house: House) -> None:
    pending = domains.create_domain(name="acme-shop.test", tenant=house.acme, actor=house.accounts["owner"])
    lapsed = world.domain("acme-events.test", house.acme, proof="lapsed")
    _found(house.domain, 3, dmarc=["v=DMARC1; p=none; rua=mailto:dmarc@partner.test"], autoconfig=[])
    _found(lapsed, 12, mx=["10 mx.slow.test"], spf=["v=spf1 include:slow.test -all"], dmarc=[])
    _found(pending, 4, proof=[], mx=[], spf=[], dmarc=[])


def _found(domain: Domain, minutes: int, **others: list[str]) -> None:
    """A look so long ago: what is expected, but for `others` by the records' keys."""
    at = timezone.now() - timedelta(minutes=minutes)
    answers = [
        {
            "name": record.name, "type": record.type, "error": "",
            "values": others.get(record.key, list(record.values)),
        }
        for record in checks.expected(domain)
    ]
    DomainCheck.objects.update_or_create(domain=domain, defaults={
        "asked_at": at + timedelta(days=1), "checked_at": at, "changed_at": at - timedelta(days=2),
        "verdicts": {key: "different" if values else "nothing" for key, values in others.items()},
        "found": {
            "answers": answers, "addresses": {}, "nested": 0, "included": [], "nameservers": ["ns1.partner.test"],
        },
    })


def _mailboxes(house: House) -> None:
    now, owner = timezone.now(), house.accounts["owner"]
    Mailbox.objects.filter(pk=house.mailbox.pk).update(quota_bytes=5 * GB)
    house.mailbox.person.name = "Ann Jones"
    house.mailbox.person.save(update_fields=["name"])
    _holds(house.mailbox, 3.4)
    for name, display, used_gb, sent in PEOPLE:
        made = mailboxes.create_mailbox(
            address=f"{name}@acme.test", name=display, password=world.PASSWORD, quota_bytes=5 * GB,
            tenant=house.acme, actor=owner,
        )
        _holds(made, used_gb)
        _sent(Kind.MAILBOX, made.pk, sent)
    stopped = Mailbox.objects.get(address__local_part="finn")
    operations.suspend(stopped, reason="left the company", actor=owner)
    mailboxes.create_alias(
        address="sales@acme.test", targets=["ann@acme.test", "ben@acme.test", "agency@partner.test"],
        description="What the shop's page names", tenant=house.acme, actor=owner,
    )
    mailboxes.create_alias(address="@acme.test", targets=["office@acme.test"], tenant=house.acme, actor=owner)
    for label, scopes, days in (("web shop", ("submission",), 0), ("Old laptop", ("submission", "imap"), 200)):
        credential, _secret = world.app_password(house.mailbox, label, scopes)
        Credential.objects.filter(pk=credential.pk).update(
            created_at=now - timedelta(days=days + 30), last_used_at=now - timedelta(days=days, minutes=4),
            last_used_ip="203.0.113.9",
        )
    for label, more in (
        ("Old phone", {"frozen_at": now - timedelta(days=2), "frozen_reason": "frozen by its owner"}),
        ("Scanner", {"frozen_at": now - timedelta(hours=5), "frozen_reason": "It sent 40 times as much as usual."}),
        ("Fair, May", {"expires_at": now - timedelta(days=9)}),
        ("Ticket desk", {"networks": ["192.0.2.0/24", "2001:db8:40::/48"], "expires_at": now + timedelta(days=30)}),
    ):
        world.app_password(house.mailbox, label, ("submission", "imap"), **more)
    world.rules(house.mailbox, junk=True, vacation=True, vacation_text="I am away until Monday.")
    set_limit(house.mailbox, window="hour", recipients=200, actor=owner)
    _sent(Kind.MAILBOX, house.mailbox.pk, 64)
    _sent(Kind.TENANT, house.acme.pk, 354)


def _holds(mailbox: Mailbox, used_gb: float) -> None:
    MailboxUsage.objects.create(
        mailbox=mailbox, used_bytes=int(used_gb * GB), messages=int(used_gb * 2100), known_at=timezone.now()
    )


def _sent(kind: Kind, subject: int, today: int) -> None:
    """So many recipients in 24 hours, and about as many on each day of the month."""
    rings, now_s = Rings(), timezone.now().timestamp()
    for day in range(29, 0, -1):
        rings.charge(today * (10 + day * 7 % 11) // 15, now_s - day * 86400)
    for hour in (20, 6, 3, 1):
        rings.charge(today // 5, now_s - hour * 3600)
    rings.charge(today - 4 * (today // 5), now_s - 600)
    Counter.objects.update_or_create(kind=kind, subject=subject, defaults={"rings": rings.pack()})


def _mail(house: House) -> None:
    now = timezone.now()
    begun = now - timedelta(hours=5)
    Message.objects.filter(pk__in=(house.message.pk, house.sent.pk)).update(
        reverse_path="ann@acme.test", subject="Order 1024 of the web shop", accepted_at=begun, size=48_200,
        message_id="<1024.a7@shop.acme.test>", header_from="Ann Jones <ann@acme.test>", facts={"charged": [
            _charge("credential", house.shop_password.pk, "web shop", "hour", 12, 200),
            _charge("mailbox", house.mailbox.pk, "ann@acme.test", "day", 40, 500),
            _charge("tenant", house.acme.pk, "Acme", "day", 6905, 10_000),
        ]},
    )
    Recipient.objects.filter(message=house.message).update(due_at=now + timedelta(minutes=9))
    for name in ("first@elsewhere.test", "second@elsewhere.test"):
        seen = queue.recipient(
            house.message, name, state="waiting", last_reply=GREYLISTED, tries=2, due_at=now + timedelta(minutes=4)
        )
        for minutes in (290, 26):
            queue.attempt(seen, reply=GREYLISTED, at=now - timedelta(minutes=minutes))
    for number, (subject, to, state, answer) in reversed(list(enumerate(SENT))):
        at = now - timedelta(minutes=4 + 37 * number)
        sent = queue.message(
            house.acme, credential=house.password, reverse_path="ann@acme.test", subject=subject, accepted_at=at,
        )
        seen = queue.recipient(
            sent, to, state=state, last_reply=answer, tries=1, due_at=now + timedelta(minutes=6),
            settled_at=None if state == "waiting" else at,
        )
        if answer:
            queue.attempt(
                seen, {"waiting": "deferred"}.get(state, state), reply=answer, at=at, host=f"mx.{to.partition('@')[2]}"
            )
    come = queue.message(reverse_path="kim@partner.test", subject="Re: Offer for the spring catalogue")
    seen = queue.recipient(come, "sales@acme.test", last_reply="", settled_at=now)
    Recipient.objects.filter(pk=seen.pk).update(
        resolved="ann@acme.test", tenant=house.acme, recipient_tenant=house.acme, next_hop="local"
    )


def _charge(kind: str, pk: int, name: str, window: str, used: int, allowed: int) -> dict[str, object]:
    """What a message keeps of a limit that it was charged to."""
    return {"kind": kind, "id": pk, "name": name, "window": window, "used": used, "allowed": allowed}


def _sign_ins(house: House) -> None:
    now, main = timezone.now(), house.mailbox.credentials.get(kind="main")
    LoginEvent.objects.filter(pk=house.sign_in.pk).update(
        at=now - timedelta(days=2), last_at=now - timedelta(days=2)
    )
    for minutes, protocol, outcome, ip, used in (
        (2000, "submission", "ok", "198.51.100.7", house.password), (600, "imap", "wrong", "198.51.100.24", None),
        (300, "imap", "ok", "192.0.2.7", main), (95, "submission", "ok", "203.0.113.9", house.password),
        (31, "panel", "ok", "2001:db8:40::1c", main), (4, "imap", "ok", "203.0.113.9", house.password),
    ):
        at = now - timedelta(minutes=minutes)
        world.login_event(
            house.mailbox, at=at, last_at=at, protocol=protocol, outcome=outcome, ip=ip, credential=used,
            credential_text='app password "Phone"' if used == house.password else "main password",
        )
    # Each browser that is open, and another one.
    for number, account in enumerate(filter(None, house.accounts.values())):
        PanelSession.objects.filter(user=account).update(
            browser=LAPTOP, ip="203.0.113.9", began_at=now - timedelta(hours=3), seen_at=now - timedelta(minutes=3)
        )
        PanelSession.objects.create(
            session_key=f"phone{number}", user=account, browser=PHONE, ip="2001:db8:40::1c",
            began_at=now - timedelta(days=3), seen_at=now - timedelta(hours=9), expire_date=now + timedelta(days=1),
        )


def _letters(mailbox: Mailbox, data: Path) -> None:
    folder = data / "mail" / mailbox.opaque_id[:2] / mailbox.opaque_id / "Maildir" / "cur"
    folder.mkdir(parents=True, exist_ok=True)
    now_s = int(timezone.now().timestamp())
    for number, (subject, sender, text) in enumerate((
        ("Re: Offer for the spring catalogue", "Kim King <kim@partner.test>", "Thank you, we take it.\n\nKim\n"),
        ("Invoice 889", "Bob Hill <bob@elsewhere.test>", "The invoice is attached.\n"),
        ("Your password ends today", '"ann@acme.test" <x@slow.test>', "Sign in here: https://slow.test/\n"),
        ("What is new in spring", "Uni Press <news@uni.test>", "Read it at https://uni.test/spring\n"),
    )):
        letter = EmailMessage()
        letter["From"], letter["To"], letter["Subject"] = sender, str(mailbox), subject
        letter.set_content(text)
        if number == 1:
            letter.add_attachment(b"%PDF-1.4\n", maintype="application", subtype="pdf", filename="invoice-889.pdf")
        if number == 3:
            letter.add_alternative(NEWS, subtype="html")
        name = "1790000000.M1.mail" if number == 1 else f"{now_s - number * 5000}.M{number}.mail"
        (folder / f"{name}:2,{'S' if number else ''}").write_bytes(letter.as_bytes())
