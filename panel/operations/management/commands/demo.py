"""The demo on the command line."""

from django.conf import settings

from panel.operations import demo
from panel.operations.management import base
from panel.tenants.changes import ServiceError


class Command(base.Command):
    help = (
        "The demo of a first start: the administrator admin@localhost, the tenant Demo with demo.test, and the "
        "mailboxes shop@demo.test and office@demo.test. Made once, and only where there is no account yet."
    )
    examples = "demo seed"

    def add_acts(self, acts: base.Acts) -> None:
        acts.add(
            "seed", self.seed,
            help="Make the demo. Its passwords are shown now and kept in demo.txt in the data folder.",
            examples="demo seed",
        )

    def seed(self) -> None:
        file = settings.ENVIRONMENT.data / demo.FILE
        try:
            made = demo.seed(settings.ENVIRONMENT.data)
        except OSError as error:
            raise ServiceError(f"The demo is not made: {file} can't be written: {error.strerror}.") from None
        if not made:
            self.say("Nothing to do: the demo was made before, or there are accounts already.")
            return
        lines = file.read_text().splitlines()
        if self.as_json:
            self.json([dict(zip(("login", "password"), line.split(" "), strict=True)) for line in lines])
        else:
            self.stdout.write("\n".join(lines))
