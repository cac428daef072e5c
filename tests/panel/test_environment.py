"""The settings: typed, with defaults, and a sentence for each value that can't be used."""

import stat
from pathlib import Path

import pytest

from panel import environment
from panel.environment import BadSetting, Listen, Store


def test_defaults_are_those_that_are_documented():
    settings = environment.read({})
    assert settings.http == Listen("127.0.0.1", 8000)
    assert settings.mx == (Listen("127.0.0.1", 2525),)
    assert settings.submission == (Listen("127.0.0.1", 2587),)
    assert settings.submissions == (Listen("127.0.0.1", 2465),)
    assert settings.outward_port == 25
    assert settings.outward_private == ()
    assert settings.dns is None
    assert settings.data.name == "var"
    assert settings.tls_cert == settings.data / "tls" / "cert.pem"
    assert settings.message_size == 50 * 1024 * 1024
    assert settings.node == settings.hostname


def test_lists_sizes_and_networks_are_read():
    settings = environment.read({
        "POSTHOUSE_MX": "0.0.0.0:25, [::]:25",
        "POSTHOUSE_MESSAGE_SIZE": "10M",
        "POSTHOUSE_OUTWARD_PRIVATE": "10.0.0.0/8,192.168.7.0/24",
        "POSTHOUSE_HOSTNAME": "MX1.Example.COM.",
        "POSTHOUSE_SEPARATOR": "",
    })
    assert settings.mx == (Listen("0.0.0.0", 25), Listen("::", 25))
    assert str(settings.mx[1]) == "[::]:25"
    assert settings.message_size == 10 * 1024 * 1024
    assert [str(network) for network in settings.outward_private] == ["10.0.0.0/8", "192.168.7.0/24"]
    assert settings.hostname == "mx1.example.com"
    assert settings.separator == ""


@pytest.mark.parametrize(("variables", "words"), [
    ({"POSTHOUSE_MX": "25"}, "write ADDRESS:PORT"),
    ({"POSTHOUSE_MX": "mx.example.com:25"}, "is not an IP address"),
    ({"POSTHOUSE_SUBMISSION": "127.0.0.1:70000"}, "write ADDRESS:PORT"),
    ({"POSTHOUSE_WORKERS": "0"}, "whole number from 1 to 63"),
    ({"POSTHOUSE_WORKERS": "many"}, "whole number from 1 to 63"),
    ({"POSTHOUSE_MESSAGE_SIZE": "big"}, "write a size"),
    ({"POSTHOUSE_MESSAGE_SIZE": "1K"}, "write a size"),
    ({"POSTHOUSE_OUTWARD_PRIVATE": "10.0.0.1/8"}, "write networks"),
    ({"POSTHOUSE_OUTWARD_PORT": "0"}, "whole number"),
    ({"POSTHOUSE_HOSTNAME": "no_such host"}, "full host name"),
    ({"POSTHOUSE_HTTPS_PROXY": "maybe"}, "write yes or no"),
    ({"POSTHOUSE_LEAKED_PASSWORDS": "/nonexistent/leaked.txt"}, "a file that is there"),
    ({"POSTHOUSE_HTTP": "0.0.0.0:8000"}, "POSTHOUSE_HTTPS_PROXY=yes"),
    ({"POSTHOUSE_MTA_STS": "mta-sts.example.com"}, "POSTHOUSE_HTTPS_PROXY=yes"),
    ({"POSTHOUSE_MTA_STS": "https://x", "POSTHOUSE_HTTPS_PROXY": "yes"}, "full host name"),
    ({"POSTHOUSE_TLS_CERT": "/etc/cert.pem"}, "set both or neither"),
    ({"POSTHOUSE_POSTMASTER": "nobody"}, "write an address"),
    ({"POSTHOUSE_SEPARATOR": "@"}, "write one of"),
    ({"POSTHOUSE_STORE": "dovecot"}, "write maildir, lmtp:ADDRESS:PORT"),
    ({"POSTHOUSE_STORE": "lmtp:24"}, "write ADDRESS:PORT"),
    ({"POSTHOUSE_STORE": "maildir,lmtp"}, "write maildir, lmtp:ADDRESS:PORT"),
    ({"POSTHOUSE_STORE": "lmtp:/a,lmtp:/b"}, "write maildir, lmtp:ADDRESS:PORT"),
    ({"POSTHOUSE_STORE": "lmtp:/" + "a" * 107}, "longer than 107 bytes"),
    ({"POSTHOUSE_HOSTNAME": "mx.example.com\r\nX: y"}, "control character"),
])
def test_a_bad_value_names_the_setting_and_what_to_write(variables, words):
    with pytest.raises(BadSetting) as refused:
        environment.read(variables)
    sentence = str(refused.value)
    assert words in sentence
    assert next(iter(variables)) in sentence


def test_public_port_is_the_first_listened_on_or_the_standard_one():
    listens = {"POSTHOUSE_IMAPS": "0.0.0.0:1993,[::]:2993", "POSTHOUSE_POP3S": ","}
    own = environment.read(listens)
    assert own.public_port("imaps") == 1993
    assert own.public_port("pop3s") is None
    standard = environment.read({**listens, "POSTHOUSE_STANDARD_PORTS": "yes"})
    ports = {service: standard.public_port(service) for service in environment.STANDARD_PORTS}
    assert ports == {"submission": 587, "submissions": 465, "imaps": 993, "pop3s": None, "sieve": 4190}


@pytest.mark.parametrize(("text", "store"), [
    ("", Store("maildir", None)),
    ("maildir", Store("maildir", None)),
    ("lmtp:127.0.0.1:24", Store("lmtp", Listen("127.0.0.1", 24))),
    ("lmtp:[::1]:24", Store("lmtp", Listen("::1", 24))),
    ("lmtp:/run/dovecot/lmtp", Store("lmtp", Path("/run/dovecot/lmtp"))),
    ("maildir,lmtp:/run/dovecot/lmtp", Store("maildir", Path("/run/dovecot/lmtp"))),
    ("lmtp:/run/dovecot/lmtp, maildir", Store("lmtp", Path("/run/dovecot/lmtp"))),
])
def test_the_store_is_maildirs_or_lmtp_or_both(text, store):
    assert environment.read({"POSTHOUSE_STORE": text}).store == store


def test_beyond_loopback_with_a_proxy_is_allowed():
    settings = environment.read({"POSTHOUSE_HTTP": "0.0.0.0:8000", "POSTHOUSE_HTTPS_PROXY": "yes"})
    assert settings.https_proxy


def test_secret_key_is_made_once_for_its_owner_alone(tmp_path: Path):
    settings = environment.read({"POSTHOUSE_DATA": str(tmp_path / "data")})
    key = environment.secret_key(settings)
    assert len(key) >= 32
    assert environment.secret_key(settings) == key
    assert stat.S_IMODE((tmp_path / "data" / "secret.key").stat().st_mode) == 0o600


def test_secret_key_comes_from_the_environment_or_a_file(tmp_path: Path):
    given = environment.read({"POSTHOUSE_SECRET_KEY": "x" * 40})
    assert environment.secret_key(given) == "x" * 40
    file = tmp_path / "key"
    file.write_text("y" * 40 + "\n")
    from_file = environment.read({"POSTHOUSE_SECRET_KEY_FILE": str(file)})
    assert environment.secret_key(from_file) == "y" * 40
    file.write_text("short")
    with pytest.raises(BadSetting, match="too short"):
        environment.secret_key(from_file)
    missing = environment.read({"POSTHOUSE_SECRET_KEY_FILE": str(tmp_path / "none")})
    with pytest.raises(BadSetting, match="can't be read"):
        environment.secret_key(missing)


def test_settings_never_show_the_secret_key():
    assert "x" * 40 not in repr(environment.read({"POSTHOUSE_SECRET_KEY": "x" * 40}))
