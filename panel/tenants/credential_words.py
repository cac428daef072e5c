"""What logged in, in the reader's language, from the text that is kept of it.

A login and a message keep a password's name in English (Credential.__str__), cut to a column: the password
itself may be gone.
"""

import re

from django.utils.translation import gettext as _

_KEPT = re.compile(
    r'(?P<login>.*, )?(?:(?P<kind>app password|passkey) "(?P<label>[^"]*)"?|(?P<main>main password))',
    re.DOTALL,
)


def credential_words(kept: str) -> str:
    """As ann@acme.example, app password “phone”; what isn't understood stays as it is."""
    found = _KEPT.fullmatch(kept)
    if found is None:
        return kept
    if found["main"]:
        name = _("main password")
    else:
        words = _("passkey “{label}”") if found["kind"] == "passkey" else _("app password “{label}”")
        name = words.format(label=found["label"])
    return f"{found['login'] or ''}{name}"
