"""Dovecot's configuration: what it says, and that Dovecot itself takes it."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.management import call_command

from panel import environment
from panel.environment import Environment
from panel.operations import dovecot
from panel.operations.dovecot import NoConfiguration, Owners

# Users that every Debian has: what is asked here is not who they are.
TWO = Owners("mail", "mail", "daemon", "daemon", "nobody", "games")
ONE = Owners("mail", "mail", "mail", "mail", "mail", "mail")


@pytest.fixture
def settings() -> Environment:
    return environment.read({
        "POSTHOUSE_DATA": "/var/lib/posthouse/data", "POSTHOUSE_IMAPS": "192.0.2.1:993,[2001:db8::1]:993",
        "POSTHOUSE_HOSTNAME": "mx.posthouse.test",
    })


def test_it_listens_where_the_settings_say_and_offers_nothing_without_tls(settings):
    text = dovecot.configuration(settings, TWO)
    assert "inet_listener imaps {\n    address = 192.0.2.1\n    port = 993\n    ssl = yes\n" in text
    assert "inet_listener imaps1 {\n    address = 2001:db8::1\n    port = 993\n    ssl = yes\n" in text
    assert "inet_listener pop3s {\n    address = 127.0.0.1\n    port = 2995\n    ssl = yes\n" in text
    assert "inet_listener sieve {\n    address = 127.0.0.1\n    port = 2190\n  }" in text
    assert text.count("port = 0") == 2, "no plain IMAP or POP3"
    assert "ssl = required" in text


@pytest.mark.dovecot
@pytest.mark.parametrize("owners", [TWO, ONE])
def test_dovecot_takes_it_and_each_folder_has_its_use(settings, owners, tmp_path):
    settings = replace(settings, tls_cert=tmp_path / "cert", tls_key=tmp_path / "key")
    for path in (settings.tls_cert, settings.tls_key):
        path.write_text("")
    (tmp_path / "dovecot.conf").write_text(dovecot.configuration(settings, owners))
    done = subprocess.run(
        [shutil.which("doveconf") or "doveconf", "-n", "-c", tmp_path / "dovecot.conf"], capture_output=True, text=True,
        timeout=60, check=False,
    )
    assert done.returncode == 0, done.stderr
    for folder in ("Drafts", "Sent", "Junk", "Trash", "Archive"):
        assert f"special_use = \\{folder}" in done.stdout
    assert f"mail_uid = {owners.mail}" in done.stdout


def test_the_key_of_authds_part_is_the_installations(settings):
    settings = replace(settings, secret_key="x" * 40)
    text = dovecot.authd_configuration(settings)
    assert environment.dovecot_key("x" * 40) in text
    assert environment.dovecot_key("x" * 40) != environment.dovecot_key("y" * 40)
    assert "x" * 40 not in text
    assert "uri = proxy:/var/lib/posthouse/data/run/dovecot-auth.sock:auth" in text


@pytest.mark.parametrize("path", ["/var/lib/" + "x" * 90, "/srv/my mail", "/srv/a$b", "/srv/a#b"])
def test_a_data_folder_that_dovecot_cannot_have_is_said(settings, path):
    with pytest.raises(NoConfiguration, match="path"):
        dovecot.configuration(replace(settings, data=Path(path)), TWO)


def test_the_command_prints_both_parts(monkeypatch, capsys):
    monkeypatch.setattr(dovecot, "owners", lambda: TWO)
    call_command("dovecot", "config")
    assert capsys.readouterr().out.startswith("# Dovecot 2.3 for Posthouse")
    call_command("dovecot", "config", "--part", "authd")
    assert "key = passdb/" in capsys.readouterr().out
