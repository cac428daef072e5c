from django.apps import AppConfig


class MailboxesConfig(AppConfig):
    name = "panel.mailboxes"
    label = "mailboxes"
    verbose_name = "Addresses"
