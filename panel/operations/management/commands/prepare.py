"""`manage.py prepare`: everything that must exist before the first start."""

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from panel.operations import certificate


class Command(BaseCommand):
    help = (
        "Make what must exist before the mailserver and the panel start: the data folder, a self-signed certificate "
        "where none is set, and the database's tables. Safe to run again; it changes only what is missing or old."
    )

    def handle(self, *args, **options):
        environment = settings.ENVIRONMENT
        try:
            environment.data.mkdir(parents=True, exist_ok=True)
            if certificate.ensure(environment.tls_cert, environment.tls_key, environment.hostname):
                self.stdout.write(f"made a certificate: {environment.tls_cert}")
        except OSError as error:
            raise CommandError(
                f"{error.filename} can't be written: {error.strerror}. "
                "Give this user the right to it, or set POSTHOUSE_DATA to another folder."
            ) from None
        call_command("migrate", interactive=False, verbosity=0)
        self.stdout.write("the database is up to date")
