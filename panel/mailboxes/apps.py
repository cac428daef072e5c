from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class MailboxesConfig(AppConfig):
    name = "panel.mailboxes"
    label = "mailboxes"
    verbose_name = gettext_lazy("Addresses")
