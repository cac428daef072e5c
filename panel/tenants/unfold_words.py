"""The words of unfold's that pages of the admin show: it brings no translations of its own.

Django looks a text up in this catalogue before those of the apps, wherever it is marked.
"""

from django.utils.translation import gettext_noop

WORDS = (
    gettext_noop("Apply Filters"), gettext_noop("Date"), gettext_noop("Expand row"), gettext_noop("False"),
    gettext_noop("Filters"), gettext_noop("General"), gettext_noop("Go back"), gettext_noop("More actions"),
    gettext_noop("No data"), gettext_noop("No results found"), gettext_noop("Reset filters"), gettext_noop("Run"),
    gettext_noop("Select action"), gettext_noop("Select action to run"), gettext_noop("Select all rows"),
    gettext_noop("Select value"), gettext_noop("System"), gettext_noop("Toggle password visibility"),
    gettext_noop("True"), gettext_noop("Type to search"),
)
