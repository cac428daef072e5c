"""Dovecot's configuration: what it says in each version's words, and that Dovecot itself takes it."""

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
from panel.rules import filtering

# Users that every Debian has: what is asked here is not who they are.
TWO = Owners("mail", "mail", "daemon", "daemon", "nobody", "games")
ONE = Owners("mail", "mail", "mail", "mail", "mail", "mail")

# A block's path and what must stand in it, for each version.
SAID = {
    "2.3": {
        (): [
            "protocols = imap pop3 sieve lmtp", "ssl = required", "disable_plaintext_auth = yes",
            "ssl_cert = </var/lib/posthouse/data/tls/cert.pem", "ssl_key = </var/lib/posthouse/data/tls/key.pem",
            "auth_mechanisms = plain login", "auth_username_chars =", "auth_worker_max_count = 120",
            "doveadm_allowed_commands = kick",
            "recipient_delimiter = +", "lmtp_save_to_detail_mailbox = no",
            "mail_location = maildir:~/Maildir",
            "mail_plugins = $mail_plugins quota quota_clone", "quota_full_tempfail = yes",
            "mail_uid = mail", "first_valid_uid = 8", "last_valid_uid = 8",
        ],
        ("service imap-login", "inet_listener imap"): ["port = 0"],
        ("service imap-login", "inet_listener imaps"): ["address = 192.0.2.1", "port = 993", "ssl = yes"],
        ("service imap-login", "inet_listener imaps1"): ["address = 2001:db8::1", "port = 993", "ssl = yes"],
        ("service pop3-login", "inet_listener pop3"): ["port = 0"],
        ("service pop3-login", "inet_listener pop3s"): ["address = 127.0.0.1", "port = 2995", "ssl = yes"],
        ("service managesieve-login", "inet_listener sieve"): ["address = 127.0.0.1", "port = 2190"],
        ("service lmtp",): ["user = mail"],
        ("service lmtp", "unix_listener posthouse-lmtp"): ["mode = 0600", "user = games"],
        ("service auth-worker",): ["user = $default_internal_user", "process_limit = 150"],
        ("service auth",): ["client_limit = 2048"],
        ("service anvil", "unix_listener anvil-auth-penalty"): ["mode = 0"],
        ("service doveadm", "unix_listener posthouse-kick"): ["mode = 0600", "user = games"],
        ("passdb",): ["driver = dict", 'args = "{place}/authd.conf.ext"'],
        ("userdb",): ["driver = dict", 'args = "{place}/authd.conf.ext"'],
        ("namespace inbox",): ["inbox = yes", "separator = /"],
        ("protocol imap",): ["mail_plugins = $mail_plugins imap_quota"],
        ("protocol lmtp",): ["mail_plugins = $mail_plugins sieve"],
        ("plugin",): [
            "quota = count:User quota", "quota_vsizes = yes", "sieve = file:~/sieve;active=~/.dovecot.sieve",
            'sieve_before = "{place}/junk.sieve"', "sieve_global_extensions = +vnd.dovecot.environment",
            "sieve_extensions = -vacation -reject -enotify", "sieve_max_redirects = 0",
        ],
    },
    "2.4": {
        (): [
            "dovecot_config_version = 2.4.0", "dovecot_storage_version = 2.4.0",
            "protocols = imap pop3 sieve lmtp", "ssl = required", "auth_allow_cleartext = no",
            'ssl_server_cert_file = "/var/lib/posthouse/data/tls/cert.pem"',
            'ssl_server_key_file = "/var/lib/posthouse/data/tls/key.pem"',
            "auth_mechanisms = plain login", "auth_username_chars =", "doveadm_allowed_commands = kick",
            "recipient_delimiter = +", "lmtp_save_to_detail_mailbox = no",
            "mail_driver = maildir", "mail_path = ~/Maildir", "quota_full_tempfail = yes", "sieve_max_redirects = 0",
            "mail_uid = mail", "first_valid_uid = 8", "last_valid_uid = 8",
        ],
        ("service imap-login", "inet_listener imap"): ["port = 0"],
        ("service imap-login", "inet_listener imaps"): ["listen = 192.0.2.1", "port = 993", "ssl = yes"],
        ("service imap-login", "inet_listener imaps1"): ["listen = 2001:db8::1", "port = 993", "ssl = yes"],
        ("service pop3-login", "inet_listener pop3"): ["port = 0"],
        ("service pop3-login", "inet_listener pop3s"): ["listen = 127.0.0.1", "port = 2995", "ssl = yes"],
        ("service managesieve-login", "inet_listener sieve"): ["listen = 127.0.0.1", "port = 2190"],
        ("service lmtp",): ["user = mail"],
        ("service lmtp", "unix_listener posthouse-lmtp"): ["mode = 0600", "user = games"],
        ("service auth-worker",): ["user = $SET:default_internal_user", "process_limit = 150"],
        ("service auth",): ["client_limit = 2048"],
        ("service anvil", "unix_listener anvil-auth-penalty"): ["mode = 0"],
        ("service anvil", "unix_listener anvil"): ["mode = 0600", "user = mail"],
        ("service doveadm", "unix_listener posthouse-kick"): ["mode = 0600", "user = games"],
        ("passdb lua",): ["use_worker = yes", 'lua_file = "{place}/authd.lua"'],
        ("passdb lua", "lua_settings"): ['socket = "/var/lib/posthouse/data/run/dovecot-auth.sock"'],
        ("userdb lua",): ["use_worker = yes", 'lua_file = "{place}/authd.lua"'],
        ("userdb lua", "lua_settings"): ['socket = "/var/lib/posthouse/data/run/dovecot-auth.sock"'],
        ("userdb lua", "fields"): ["uid = mail", "gid = mail"],
        ("namespace inbox",): ["inbox = yes", "separator = /"],
        ("mail_plugins",): ["quota = yes", "quota_clone = yes"],
        ("protocol imap", "mail_plugins"): ["imap_quota = yes"],
        ("protocol lmtp", "mail_plugins"): ["sieve = yes"],
        ('quota "User quota"',): ["driver = count"],
        ("quota_clone", "dict proxy"): ["name = quota"],
        ("dict_server", "dict quota"): [
            "driver = proxy", "proxy_name = quota",
            'proxy_socket_path = "/var/lib/posthouse/data/run/dovecot-auth.sock"',
        ],
        ("service dict", "unix_listener dict"): ["mode = 0600", "user = mail"],
        ("sieve_script personal",): ["driver = file", "path = ~/sieve", "active_path = ~/.dovecot.sieve"],
        ("sieve_script junk",): ["type = before", "driver = file", 'path = "{place}/junk.sieve"'],
        ("sieve_global_extensions",): ["vnd.dovecot.environment = yes"],
        ("sieve_extensions",): ["vacation = no", "reject = no", "enotify = no"],
    },
}


@pytest.fixture
def settings() -> Environment:
    return environment.read({
        "POSTHOUSE_DATA": "/var/lib/posthouse/data", "POSTHOUSE_IMAPS": "192.0.2.1:993,[2001:db8::1]:993",
        "POSTHOUSE_HOSTNAME": "mx.posthouse.test",
    })


def blocks(text: str) -> dict[tuple[str, ...], list[str]]:
    """Each block's settings by its path; a block that comes again goes on."""
    found: dict[tuple[str, ...], list[str]] = {(): []}
    path: tuple[str, ...] = ()
    for line in (line.strip() for line in text.splitlines()):
        if line.endswith("{"):
            path = (*path, line[:-1].strip())
            found.setdefault(path, [])
        elif line == "}":
            path = path[:-1]
        elif line and not line.startswith("#"):
            found[path].append(line)
    assert path == (), "a block isn't closed"
    return found


@pytest.mark.parametrize("version", dovecot.VERSIONS)
def test_every_setting_stands_where_it_belongs(settings, version):
    text = dovecot.configuration(settings, TWO, version)
    found = blocks(text)
    for path, wanted in SAID[version].items():
        for line in wanted:
            assert line.format(place=dovecot.folder(settings)) in found[path], path
    for folder in ("Drafts", "Sent", "Junk", "Trash", "Archive"):
        assert found["namespace inbox", f"mailbox {folder}"] == [f"special_use = \\{folder}", "auto = subscribe"]
    assert not [path for path in found if "chroot =" in found[path]], "root's is locked in"
    assert text.count("port = 0") == 2, "no plain IMAP or POP3"
    assert found["service lmtp", "unix_listener lmtp"] == ["mode = 0"], "Dovecot's own is open to everybody"
    assert "mode = 0600" in found["service lmtp", "unix_listener posthouse-lmtp"]
    assert text.startswith(f"# Dovecot {version} for Posthouse")
    if version == "2.4":
        assert found[()][0].startswith("dovecot_config_version"), "2.4 wants it first"


@pytest.mark.parametrize("version", dovecot.VERSIONS)
def test_one_user_alone_can_lock_nothing_in(settings, version):
    found = blocks(dovecot.configuration(settings, ONE, version))
    for service in ("imap-login", "pop3-login", "managesieve-login"):
        assert "chroot =" in found[f"service {service}",]


@pytest.mark.dovecot
@pytest.mark.parametrize("owners", [TWO, ONE])
def test_dovecot_takes_it_and_reads_it_as_it_is_meant(settings, owners, tmp_path):
    folder = tmp_path / "my \"mail\" isn't"
    folder.mkdir()
    settings = replace(settings, tls_cert=folder / "cert", tls_key=folder / "key")
    for path in (settings.tls_cert, settings.tls_key):
        path.write_text("")
    version = dovecot.rendered_version()
    (tmp_path / "dovecot.conf").write_text(dovecot.configuration(settings, owners, version))
    done = ask_doveconf(tmp_path / "dovecot.conf", "-n")
    for name in ("Drafts", "Sent", "Junk", "Trash", "Archive"):
        assert f"special_use = \\{name}" in done.replace("\\\\", "\\").replace('"', "")
    assert f"mail_uid = {owners.mail}" in done
    assert str(settings.tls_cert) in done.replace("\\", "")


def ask_doveconf(path: Path, *arguments: str) -> str:
    done = subprocess.run(
        [shutil.which("doveconf") or "doveconf", "-c", path, *arguments], capture_output=True, text=True,
        timeout=60, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def test_the_key_of_authds_part_is_the_installations(settings):
    settings = replace(settings, secret_key="x" * 40)
    text = dovecot.authd_configuration(settings, "2.3")
    assert environment.dovecot_key("x" * 40) in text
    assert environment.dovecot_key("x" * 40) != environment.dovecot_key("y" * 40)
    assert "x" * 40 not in text
    assert "uri = proxy:/var/lib/posthouse/data/run/dovecot-auth.sock:auth" in text


@pytest.mark.parametrize(
    "path", ["/var/lib/" + "x" * 90, "/srv/a$b", "/srv/a#b", "/srv/a%b", "/srv/a:b", "/srv/a\\b", "/srv/a\nb"]
)
def test_a_data_folder_that_dovecot_cannot_have_is_said(settings, path):
    for version in dovecot.VERSIONS:
        with pytest.raises(NoConfiguration, match="path"):
            dovecot.configuration(replace(settings, data=Path(path)), TWO, version)


@pytest.mark.parametrize(("installed", "rendered"), [("", "2.3"), ("2.3.19.1", "2.3"), ("2.4.1-4", "2.4")])
def test_the_installed_version_decides_what_is_written(monkeypatch, installed, rendered):
    monkeypatch.setattr(dovecot, "installed_version", lambda: installed)
    assert dovecot.rendered_version() == rendered


@pytest.mark.parametrize("installed", ["2.2.36", "2.40.1", "3.0.0"])
def test_another_version_is_said(monkeypatch, installed):
    monkeypatch.setattr(dovecot, "installed_version", lambda: installed)
    with pytest.raises(NoConfiguration, match=r"2\.3 or 2\.4 is needed"):
        dovecot.rendered_version()


def test_what_2_4_needs_besides_is_named_when_it_is_missing(monkeypatch, tmp_path):
    there, away = tmp_path / "there", tmp_path / "away"
    there.write_text("")
    monkeypatch.setattr(dovecot.VERSIONS["2.4"], "NEEDED", {there: "one", away: "another"})
    assert dovecot.missing_packages("2.4") == "another"
    assert dovecot.missing_packages("2.3") == ""


def test_the_command_prints_all_parts_of_both_versions(monkeypatch, capsys):
    monkeypatch.setattr(dovecot, "owners", lambda: TWO)
    monkeypatch.setattr(dovecot, "installed_version", lambda: "")

    def printed(*arguments: str) -> str:
        call_command("dovecot", "config", *arguments)
        return capsys.readouterr().out

    assert printed().startswith("# Dovecot 2.3 for Posthouse")
    assert "key = passdb/" in printed("--part", "authd")
    assert printed("--dovecot", "2.4").startswith("# Dovecot 2.4 for Posthouse")
    assert "function auth_password_verify" in printed("--dovecot", "2.4", "--part", "authd")
    assert printed("--part", "junk") == printed("--dovecot", "2.4", "--part", "junk") == filtering.sieve_for_junk()
