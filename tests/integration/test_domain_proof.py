"""A domain that its owner proves: the running mailserver finds the record by itself, and takes the domain's mail."""

import json
import smtplib

from tests.support.installation import message, until


def test_mail_is_taken_once_the_background_finds_the_proof(installation, dns):
    installation.manage("domain", "create", "new.test", "--tenant", "Demo")
    installation.run("world.mailbox('ann@new.test')")
    told = json.loads(installation.manage("domain", "records", "new.test", "--json"))
    assert (told["life"], told["proof"]) == ("pending", "pending")
    proof = next(each for each in told["records"] if each["key"] == "proof")
    dns.zone("new.test", f'_posthouse TXT "{proof["values"][0]}"\n')
    installation.start(dns=dns.listen)
    until(lambda: installation.run("answer = Domain.objects.get(name='new.test').proof") == "proved", what="its proof")

    def taken() -> bool:
        letter = message("bob@elsewhere.test", "ann@new.test", "Welcome")
        with smtplib.SMTP("127.0.0.1", installation.mx, timeout=30) as client:
            try:
                return not client.sendmail("bob@elsewhere.test", ["ann@new.test"], letter)
            except smtplib.SMTPRecipientsRefused:
                return False

    until(taken, what="the caches to learn of it")
    assert installation.inbox("ann@new.test").subjects() == ["Welcome"]
    assert 'domain' in installation.log.read_text()
