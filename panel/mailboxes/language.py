"""The language of letters to somebody, and of what they see once they sign in: an account, or a mailbox's person.

It is chosen with the console's switch. A matter of taste, like light and dark: no entry of the audit log.
"""

from django.conf import settings
from django.db import transaction

from panel.mailboxes.models import Mailbox
from panel.tenants.changes import changed
from panel.tenants.models import User


def language_of(somebody: User | Mailbox | None) -> str:
    """What was chosen, or the installation's (POSTHOUSE_LANGUAGE)."""
    chosen = somebody.language if somebody else ""
    return chosen if chosen in dict(settings.LANGUAGES) else settings.ENVIRONMENT.language


@transaction.atomic
def choose_language(account: User, language: str) -> None:
    """Write to this account in this language from now on; a person's is kept with the mailbox.

    Raises ValueError for a language that isn't there.
    """
    if language not in dict(settings.LANGUAGES):
        raise ValueError(f"there is no language {language!r}")
    if account.kind == User.Kind.PANEL:
        User.objects.filter(pk=account.pk).exclude(language=language).update(language=language)
    else:
        found = Mailbox.objects.filter(person=account).exclude(language=language)
        for name in list(found.values_list("address__domain__name", flat=True)):
            changed(name)  # the mailserver tells of delays and failures in it
        found.update(language=language)
