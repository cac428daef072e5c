"""Settings for mail clients: who is answered, with what, and that nothing else is told."""

import dataclasses
import plistlib
import xml.etree.ElementTree as ET

import dns.zone
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from panel.autoconfig import question
from panel.autoconfig.documents import AUTODISCOVER, OUTLOOK
from panel.domains import checks
from panel.environment import Listen
from panel.rules.status import Status
from tests.support import world
from tests.support.autoconfig_format import violations

WELL_KNOWN = "/.well-known/autoconfig/mail/config-v1.1.xml"
OUTLOOK_PATH = "/autodiscover/autodiscover.xml"
REQUEST = "http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"
ANSWERS = {"a": f"{{{AUTODISCOVER}}}", "o": f"{{{OUTLOOK}}}"}
HOST = "mx.posthouse.test"


def asked(address: str, *, schema: str = OUTLOOK, before: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?>{before}<Autodiscover xmlns="{REQUEST}"><Request>'
        f"<EMailAddress>{address}</EMailAddress><AcceptableResponseSchema>{schema}</AcceptableResponseSchema>"
        "</Request></Autodiscover>"
    )


@pytest.fixture
def get(client, mailbox):
    return lambda path, host=HOST, **query: client.get(path, query, headers={"host": host})


@pytest.fixture
def post(client, mailbox):
    """The XML that Outlook gets; `body` is what it posts."""

    def post(body, path=OUTLOOK_PATH, host=HOST):
        return client.post(path, body, content_type="text/xml", headers={"host": host})

    return post


@pytest.fixture
def on_standard_ports(settings):
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, standard_ports=True)


@pytest.fixture
def behind_https(settings):
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, https_proxy=True)
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")


# --- Thunderbird ---------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "host", "query"), [
    (WELL_KNOWN, "demo.test", {}),
    (WELL_KNOWN, "demo.test:443", {}),
    ("/mail/config-v1.1.xml", "autoconfig.demo.test", {"emailaddress": "shop@demo.test"}),
    ("/mail/config-v1.1.xml", "autoconfig.demo.test", {}),
    ("/mail/config-v1.1.xml", HOST, {"emailaddress": "Shop@Demo.TEST"}),
])
def test_thunderbird_is_told_the_servers_in_its_documented_format(get, path, host, query):
    response = get(path, host, **query)
    assert response.status_code == 200 and response["Content-Type"].startswith("text/xml")
    root = ET.fromstring(response.content)
    assert violations(root) == []
    assert [element.text for element in root.iter("domain")] == ["demo.test"]
    found = [(one.get("type"), one.findtext("hostname"), one.findtext("port"), one.findtext("socketType"))
             for one in root.find("emailProvider") if one.tag.endswith("Server")]
    assert found == [
        ("imap", HOST, "2993", "SSL"), ("pop3", HOST, "2995", "SSL"), ("smtp", HOST, "2465", "SSL"),
        ("smtp", HOST, "2587", "STARTTLS"),
    ]


def test_standard_ports_are_told_when_a_proxy_has_them(get, on_standard_ports):
    root = ET.fromstring(get(WELL_KNOWN, "demo.test").content)
    assert [element.text for element in root.iter("port")] == ["993", "995", "465", "587"]


def test_a_service_that_is_not_offered_is_not_told(get, settings):
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, pop3s=(), submissions=())
    root = ET.fromstring(get(WELL_KNOWN, "demo.test").content)
    assert violations(root) == []
    assert [element.get("type") for element in root.iter() if element.get("type")] == ["imap", "smtp"]


def test_the_checker_of_the_format_finds_faults():
    good = ('<clientConfig version="1.1"><emailProvider id="a.test"><domain>a.test</domain>'
            "<displayName>A</displayName><incomingServer type='imap'><hostname>h.test</hostname><port>993</port>"
            "<socketType>SSL</socketType><username>%EMAILADDRESS%</username>"
            "<authentication>password-cleartext</authentication></incomingServer></emailProvider></clientConfig>")
    assert violations(ET.fromstring(good)) == ["no outgoingServer"]
    for old, new in (("SSL", "TLS"), ("993", "0"), ("imap", "smtp"), ("h.test", "h test"), ("1.1", "1.0")):
        assert len(violations(ET.fromstring(good.replace(old, new, 1)))) == 2


def test_domain_alias_is_told_as_itself_and_not_its_domain(get, domain):
    world.domain_alias("alias.test", domain)
    answer = get("/mail/config-v1.1.xml", "autoconfig.alias.test", emailaddress="shop@alias.test").content.decode()
    assert "<domain>alias.test</domain>" in answer and "demo.test" not in answer


def test_international_domain_is_found_in_its_own_script(get, tenant):
    world.domain("xn--bcher-kva.test", tenant)
    root = ET.fromstring(get(WELL_KNOWN, emailaddress="ann@bücher.test").content)
    assert root.findtext("emailProvider/domain") == "xn--bcher-kva.test"
    assert root.findtext("emailProvider/displayName") == "bücher.test"
    assert get(WELL_KNOWN, "autoconfig.xn--bcher-kva.test").status_code == 200


# --- MTA-STS -----------------------------------------------------------------------------------


def test_a_policy_is_served_under_its_domains_policy_host(get, domain, unanswered, settings, behind_https):
    path = "/.well-known/mta-sts.txt"
    assert get(path, "mta-sts.demo.test").status_code == 404, "without a host for policies there are none"
    settings.ENVIRONMENT = dataclasses.replace(
        settings.ENVIRONMENT, mta_sts="mta-sts.host.test", mx_names=("mx1.host.test", "mx2.host.test")
    )
    world.domain_alias("alias.test", domain)
    for host, query in (
        ("mta-sts.demo.test", {}), ("MTA-STS.demo.test:443", {}), ("mta-sts.alias.test", {}),
        (HOST, {"domain": "mta-sts.demo.test"}),
    ):
        answer = get(path, host, **query)
        assert answer.status_code == 200 and answer["Content-Type"].startswith("text/plain")
        assert answer.content == (
            b"version: STSv1\r\nmode: enforce\r\nmx: mx1.host.test\r\nmx: mx2.host.test\r\nmax_age: 604800\r\n"
        )
    for host in ("demo.test", HOST, "autoconfig.demo.test", *(f"mta-sts.{name}" for name in unanswered)):
        assert get(path, host).status_code == get(path, HOST, domain=host).status_code == 404, host
    told = {record.key: record.values for record in checks.expected(domain)}
    assert told["mta-sts"] == ("_mta-sts.mta-sts.host.test",) and told["mta-sts-policy"] == ("mta-sts.host.test",)


# --- nothing else is told ------------------------------------------------------------------


@pytest.fixture
def unanswered(tenant, domain):
    """Domains that are here and not answered, each with a mailbox."""
    world.domain("pending.test", tenant, proof="pending")
    world.domain("lapsed.test", tenant, proof="lapsed")
    world.domain("closed.test", tenant, status=Status.CLOSED)
    world.domain_alias("pending-alias.test", domain, proof="pending")
    world.domain_alias("alias-of-pending.test", world.domain("other.test", tenant, proof="pending"))
    world.mailbox("ann@pending.test")
    names = ("pending.test", "lapsed.test", "closed.test", "pending-alias.test", "alias-of-pending.test")
    return [*names, "unknown.test"]


def test_unknown_and_unproved_domains_get_one_and_the_same_answer(get, post, unanswered):
    for ask in (
        lambda name: get("/mail/config-v1.1.xml", HOST, emailaddress=f"ann@{name}"),
        lambda name: get("/mail/config-v1.1.xml", f"autoconfig.{name}"),
        lambda name: get(WELL_KNOWN, name),
        lambda name: get("/apple.mobileconfig", HOST, email=f"ann@{name}"),
        lambda name: post(asked(f"ann@{name}"), host=f"autodiscover.{name}"),
    ):
        answers = {(response.status_code, response.content) for response in map(ask, unanswered)}
        assert answers == {(404, b"Nothing here.\n")}
    errors = {post(asked(f"ann@{name}")).content.replace(name.encode(), b"") for name in unanswered}
    assert len({error.partition(b"<ErrorCode>")[2] for error in errors}) == 1


def test_whether_an_address_exists_is_never_told(get, post):
    for ask in (
        lambda name: get("/mail/config-v1.1.xml", HOST, emailaddress=f"{name}@demo.test"),
        lambda name: get("/apple.mobileconfig", HOST, email=f"{name}@demo.test"),
        lambda name: post(asked(f"{name}@demo.test")),
    ):
        with CaptureQueriesContext(connection) as queries:
            there, not_there = ask("shop"), ask("nobo")
        assert there.status_code == not_there.status_code == 200
        assert not [one for one in queries.captured_queries if "mailboxes_" in one["sql"]]
    config = [get(WELL_KNOWN, HOST, emailaddress=f"{name}@demo.test").content for name in ("shop", "nobo")]
    assert config[0] == config[1]


@pytest.mark.parametrize("hostile", [
    "", "@", "shop", "shop@", "@demo.test", "shop@demo.test\r\nX: y", "<x>@demo.test", "a@[127.0.0.1]",
    "x" * 5000 + "@demo.test", "shop@demo.test\x00", "\u202e@demo.test",
])
def test_what_is_no_address_is_nothing_here(get, post, hostile):
    assert get("/apple.mobileconfig", HOST, email=hostile).status_code == 404
    if hostile:
        assert get(WELL_KNOWN, HOST, emailaddress=hostile).status_code == 404


def test_answers_carry_no_cookie_and_a_strict_policy(get):
    for path, query in ((WELL_KNOWN, {"emailaddress": "shop@demo.test"}), ("/apple.mobileconfig", {})):
        response = get(path, **query)
        assert not response.cookies
        assert response["Content-Security-Policy"].startswith("default-src 'none'")
        assert response["X-Content-Type-Options"] == "nosniff"


# --- hosts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["demo.test", "autoconfig.demo.test", "autodiscover.demo.test"])
def test_names_of_hosted_domains_open_nothing_else(get, host):
    for path in ("/", "/admin/", "/admin/login/", "/static/posthouse/logo.svg", "/mail/", "/nothing", "/mail"):
        response = get(path, host)
        # Static files are everybody's; whitenoise has them before any host is asked.
        assert response.status_code == (200 if path.startswith("/static") else 400), path


@pytest.mark.parametrize("host", [
    "evil.test", "autoconfig.evil.test", "mail.demo.test", "autoconfig.autoconfig.demo.test", "demo.test@evil.test",
    "demo.test.evil.test", "127.0.0.2", "[::2]", "a b", "", "demo.test/../x", ".demo.test",
])
def test_other_names_get_nothing_on_any_path(get, host):
    assert get(WELL_KNOWN, host, emailaddress="shop@demo.test").status_code == 404
    assert get("/admin/login/", host).status_code == 400


def test_in_the_clear_outlook_and_apple_are_sent_to_our_own_name(get, post, behind_https):
    found = get(OUTLOOK_PATH, "autodiscover.demo.test")
    assert (found.status_code, found["Location"]) == (302, f"https://{HOST}{OUTLOOK_PATH}")
    found = get("/apple.mobileconfig", "demo.test", email="shop@demo.test")
    assert (found.status_code, found["Location"]) == (302, f"https://{HOST}/apple.mobileconfig?email=shop%40demo.test")
    assert get(WELL_KNOWN, "demo.test").status_code == 200


def test_over_https_nothing_is_redirected(client, mailbox, behind_https):
    headers = {"host": "autodiscover.demo.test", "x-forwarded-proto": "https"}
    answer = client.post(OUTLOOK_PATH, asked("shop@demo.test"), content_type="text/xml", headers=headers)
    assert answer.status_code == 200
    assert client.get(OUTLOOK_PATH, headers=headers).status_code == 405


# --- Outlook -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [
    OUTLOOK_PATH, "/Autodiscover/Autodiscover.xml", "/AutoDiscover/AutoDiscover.xml", "/AUTODISCOVER/AUTODISCOVER.XML",
])
def test_outlook_is_told_one_server_a_protocol(post, path):
    response = post(asked("Shop@demo.test"), path, "autodiscover.demo.test")
    assert response.status_code == 200 and response["Content-Type"].startswith("text/xml")
    root = ET.fromstring(response.content)
    assert root.tag == "{a}Autodiscover".replace("{a}", ANSWERS["a"])
    account = root.find("{o}Response/{o}Account".replace("{o}", ANSWERS["o"]))
    fields = [{one.tag.removeprefix(ANSWERS["o"]): one.text for one in protocol}
              for protocol in account.findall(f"{ANSWERS['o']}Protocol")]
    found = [(one["Type"], one["Server"], one["Port"], one["SSL"], one["Encryption"]) for one in fields]
    assert found == [
        ("IMAP", HOST, "2993", "on", "SSL"), ("POP3", HOST, "2995", "on", "SSL"), ("SMTP", HOST, "2465", "on", "SSL"),
    ]
    assert {one["LoginName"] for one in fields} == {"Shop@demo.test"}
    assert b"assword" not in response.content


def code(response) -> str:
    assert response.status_code == 200
    return ET.fromstring(response.content).find("{a}Response/{a}Error/{a}ErrorCode".replace("{a}", ANSWERS["a"])).text


def test_outlook_hears_of_other_schemas_and_addresses_in_its_own_form(post):
    assert code(post(asked("ann@unknown.test"))) == "500"
    assert code(post(asked("shop@demo.test", schema=OUTLOOK.replace("outlook", "mobilesync")))) == "601"


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("body", [
    "", "<", "no xml", "<a><b></a>", b"\xff\xfe\x00", asked("&b;", before=LAUGHS), asked("&a;", before=OUTSIDE),
    asked("shop@demo.test", before='<!DOCTYPE a SYSTEM "http://192.0.2.1/x">'),
    asked("&unknown;"), asked("x" * 20_000), "<a>" * 500, "<a>" * 11 + "</a>" * 11,
    '<?xml version="1.0" encoding="no-such"?><a/>', '<?xml version="1.0" encoding="rot13"?><a/>',
    '<?xml version="1.0" encoding="utf-7"?><a/>',
])
def test_hostile_xml_is_an_invalid_request(post, body):
    assert code(post(body)) == "600"


def test_only_the_bytes_of_a_bounded_question_are_read():
    with pytest.raises(question.BadQuestion):
        question.read(b" " * (question.MOST_BYTES + 1))
    wide = asked(" shop@demo.test ").replace("utf-8", "utf-16").encode("utf-16")
    assert question.read(wide).address == "shop@demo.test"


@pytest.mark.parametrize("path", [
    "/autodiscover/autodiscover.json?Email=shop@demo.test&Protocol=AutodiscoverV1",
    "/Autodiscover/Autodiscover.json/v1.0/shop@demo.test?Protocol=ActiveSync",
])
def test_the_json_form_is_refused_politely_and_alike(get, path):
    response = get(path)
    assert response.status_code == 400 and response.json()["ErrorCode"] == "InvalidProtocol"
    assert get(path.replace("demo", "unknown")).content == response.content


# --- Apple -------------------------------------------------------------------------------------


def test_apple_gets_a_profile_without_a_password(get):
    response = get("/apple.mobileconfig", "demo.test", email="shop@demo.test")
    assert response["Content-Type"] == "application/x-apple-aspen-config"
    profile = plistlib.loads(response.content)
    [mail] = profile["PayloadContent"]
    assert profile["PayloadType"] == "Configuration" and mail["PayloadType"] == "com.apple.mail.managed"
    assert (mail["IncomingMailServerHostName"], mail["IncomingMailServerPortNumber"]) == (HOST, 2993)
    assert (mail["OutgoingMailServerHostName"], mail["OutgoingMailServerPortNumber"]) == (HOST, 2465)
    assert mail["IncomingMailServerUseSSL"] and mail["OutgoingMailServerUseSSL"]
    assert mail["IncomingMailServerUsername"] == mail["OutgoingMailServerUsername"] == "shop@demo.test"
    assert not [key for key in mail if key in ("IncomingPassword", "OutgoingPassword")]
    assert get("/apple.mobileconfig", "demo.test", email="shop@demo.test").content == response.content
    other = plistlib.loads(get("/apple.mobileconfig", email="ann@demo.test").content)
    assert other["PayloadUUID"] != profile["PayloadUUID"]


def test_without_imap_there_is_no_profile(get, settings):
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, imaps=())
    assert get("/apple.mobileconfig", "demo.test", email="shop@demo.test").status_code == 404


# --- DNS ---------------------------------------------------------------------------------------


def zone(capsys, name):
    call_command("domain", "dns", name)
    text = f"{name}. IN SOA ns. root. 1 1 1 1 1\n{name}. IN NS ns.\n" + capsys.readouterr().out
    return dns.zone.from_text(text, origin=f"{name}.", relativize=False, check_origin=False)


def test_the_records_to_set_are_a_zone_file(domain, capsys, settings):
    settings.ENVIRONMENT = dataclasses.replace(
        settings.ENVIRONMENT, standard_ports=True, sieve=(Listen("127.0.0.1", 2190),), pop3s=()
    )
    found = zone(capsys, "demo.test")

    def texts(name, kind):
        return [str(one) for one in found.find_rdataset(f"{name}demo.test.", kind)]

    assert texts("", "MX") == [f"10 {HOST}."]
    assert texts("", "TXT") == [f'"v=spf1 a:{HOST} ~all"']
    assert texts("_submissions._tcp.", "SRV") == [f"0 1 465 {HOST}."]
    assert texts("_submission._tcp.", "SRV") == [f"10 1 587 {HOST}."]
    assert texts("_imaps._tcp.", "SRV") == [f"0 1 993 {HOST}."]
    assert texts("_pop3s._tcp.", "SRV") == ["0 0 0 ."]
    assert texts("_imap._tcp.", "SRV") == texts("_pop3._tcp.", "SRV") == ["0 0 0 ."]
    assert texts("_sieve._tcp.", "SRV") == [f"0 1 4190 {HOST}."]
    assert texts("_autodiscover._tcp.", "SRV") == [f"0 1 443 {HOST}."]
    assert texts("autoconfig.", "CNAME") == texts("autodiscover.", "CNAME") == [f"{HOST}."]


def test_a_domain_alias_has_records_of_its_own(domain, capsys):
    world.domain_alias("alias.test", domain)
    assert zone(capsys, "alias.test").find_rdataset("alias.test.", "MX")


def test_unknown_domain_has_no_records(db):
    with pytest.raises(CommandError, match=r"There is no domain unknown\.test"):
        call_command("domain", "dns", "unknown.test")
