"""The words of a page that aren't Japanese: what a reader sees or hears of it, without names and what is data."""

import re
from html.parser import HTMLParser

from django.apps import apps
from django.db import models

# Names, units and what is written so in Japanese as well.
NAMES = {
    "Posthouse", "SMTP", "IMAP", "POP", "LMTP", "DKIM", "SPF", "DMARC", "MX", "TXT", "CNAME", "SRV", "MTA", "STS",
    "TLS", "RPT", "TTL", "DNS", "IP", "IPv", "ID", "UTC", "HTTPS", "STARTTLS", "Message", "From", "To", "Cc",
    "Received", "Junk", "Maildir", "Dovecot", "KB", "MB", "GB", "bytes", "ms", "QR", "TOTP", "Google",
    "Authenticator", "Aegis", "Password", "Bitwarden", "English", "queued", "as", "Auto", "CSV", "Autoconfig",
    "Autodiscover", "Sieve", "Control", "Command", "Mac", "Apple", "iPhone", "iPad", "Thunderbird",
    "Outlook", "Gmail", "Android", "ManageSieve", "submission", "submissions", "imaps", "imap", "pop", "sieve",
}
JAPANESE = {"accept-language": "ja"}
UNREAD = ("script", "style", "code", "kbd", "template")
# Classes: the name of a drawing, and what is nobody's sentence.
DATA = {"material-symbols-outlined", "ph-mono", "ph-reply", "mono"}
WORD = re.compile(r"[A-Za-z]{2,}")
# What is no sentence: queue ids, an action of the tests, what is typed to search, and addresses, domains and names
# with dots and underscores.
TOKEN = re.compile(
    r"\b[0-9A-HJKMNP-TV-Z]{13}\b|tenant seen|held、delivered、bounced、given-up"
    r"|\S*[@._/=\\<>{}]\S+|\S+[@_/=\\<>{}]\S*"
)
# Columns of text whose values are a program's.
OURS = {
    "action", "subject_type", "actor_name", "proved_by", "which", "next_hop", "protocol", "outcome",
}
VOID = {"br", "img", "input", "link", "meta", "hr", "line", "rect", "path", "circle", "use", "wbr", "source"}


class Shown(HTMLParser):
    """The texts that a reader sees or hears: what stands between tags, and the attributes that are read out."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._skipped = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        classes = (given.get("class") or "").split()
        if self._skipped or tag in UNREAD or DATA & set(classes):
            self._skipped += tag not in VOID
        elif given.get("lang", "ja") != "ja":
            self._skipped += 1
        else:
            for name in ("title", "placeholder", "aria-label", "data-label", "alt"):
                if value := given.get(name):
                    self.texts.append(value)
            if tag == "input" and given.get("type") in ("submit", "button"):
                self.texts.append(given.get("value") or "")

    def handle_endtag(self, tag: str) -> None:
        if self._skipped and tag not in VOID:
            self._skipped -= 1

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.texts.append(data)


def known_words() -> set[str]:
    """Names, and each word of what people wrote.

    What is ours to say isn't among it: choices, and what the audit log keeps.
    """
    found = set(NAMES)
    for model in apps.get_models():
        for field in model._meta.fields:
            if isinstance(field, models.CharField | models.TextField) and not field.choices and field.name not in OURS:
                for value in model._base_manager.values_list(field.attname, flat=True):
                    found.update(WORD.findall(value or ""))
    return found - {"app", "main", "password"}  # of what logged in


def english(page: str, known: set[str]) -> list[str]:
    shown = Shown()
    shown.feed(page)
    found = []
    for text in shown.texts:
        words = [word for word in WORD.findall(TOKEN.sub(" ", text)) if word not in known]
        if words:
            found.append(" ".join(text.split())[:120])
    return found
