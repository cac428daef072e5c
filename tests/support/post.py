"""The letters that wait in the queue, as whoever gets them reads them: by the standard library's parser."""

import re
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage

from panel.sending.models import Content, Recipient


@dataclass(frozen=True)
class Letter:
    to: str
    raw: bytes
    message: EmailMessage
    text: str
    html: str

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])

    def path(self) -> str:
        """Of the link in it."""
        found = re.findall(r"^    https?://[^/\s]+(/\S+)$", self.text, re.M)
        assert len(found) == 1, self.text
        assert f'{found[0]}"' in self.html, self.html
        return str(found[0])


def posted() -> list[Letter]:
    """All of them, the newest last."""
    recipients = {each.message_id: each.resolved for each in Recipient.objects.all()}
    found = []
    for content in Content.objects.filter(message__direction="internal").order_by("pk"):
        raw = bytes(content.body)
        message = message_from_bytes(raw, policy=policy.default)
        assert isinstance(message, EmailMessage)
        plain, html = (message.get_body((kind,)) for kind in ("plain", "html"))
        assert plain is not None and html is not None
        text, marked_up = (part.get_content().replace("\r\n", "\n") for part in (plain, html))
        found.append(Letter(recipients[content.message_id], raw, message, text, marked_up))
    return found
