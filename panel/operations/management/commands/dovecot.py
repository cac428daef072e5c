"""Dovecot on the command line: the configuration that goes with our settings."""

from django.conf import settings

from panel.environment import BadSetting
from panel.operations import dovecot
from panel.operations.management import base
from panel.rules import filtering
from panel.tenants.changes import ServiceError


class Command(base.Command):
    help = (
        "Dovecot lets people read their mail by IMAP and POP3. `deploy/run` configures and starts it by itself; this "
        "is for running it otherwise."
    )
    examples = """
        dovecot config
        dovecot config --part authd
    """

    def add_acts(self, acts: base.Acts) -> None:
        config = acts.add(
            "config", self.config, help="Print Dovecot's configuration, made from Posthouse's settings.",
            examples="""
                dovecot config >/etc/dovecot/dovecot.conf
                dovecot config --dovecot 2.4
                dovecot config --part authd >/var/lib/posthouse/data/dovecot/authd.conf.ext
            """,
        )
        config.add_argument(
            "--part", choices=("main", "authd", "junk"), default="main",
            help="authd: the file that dovecot.conf names for passdb and userdb; 2.3's holds a secret. junk: the Sieve "
            "script that it names",
        )
        config.add_argument(
            "--dovecot", choices=tuple(dovecot.VERSIONS), dest="version",
            help="the version of Dovecot (default: the installed one; without one the first of these)",
        )

    def config(self, *, part: str, version: str | None) -> None:
        environment = settings.ENVIRONMENT
        try:
            version = version or dovecot.rendered_version()
            if part == "authd":
                text = dovecot.authd_configuration(environment, version)
            elif part == "junk":
                text = filtering.sieve_for_junk()
            else:
                text = dovecot.configuration(environment, dovecot.owners(), version)
        except (dovecot.NoConfiguration, BadSetting) as error:
            raise ServiceError(f"There is no configuration: {error}") from None
        if self.as_json:
            self.json({"part": part, "text": text})
        else:
            self.stdout.write(text, ending="")
