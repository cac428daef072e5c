"""Passkeys: adding one, the step in the sign-in, the sign-in by one alone, removal; every answer that is refused."""

import json
import re
from dataclasses import replace

import pytest
from django.test import Client

from panel.operations.services import change_account, create_account
from panel.rules.lockout import MOST_GUESSES, Lock
from panel.tenants.models import AuditEntry, Passkey, SecondFactor, User
from panel.tenants.services import close_account
from panel.tenants.sign_in import passkeys, second_factor
from tests.support.authenticator import code_of
from tests.support.passkey import PRESENT, Authenticator, data, text

pytestmark = pytest.mark.django_db

PASSWORD = "an unusual password"
ANN, BOB = "ann@letters.test", "bob@letters.test"
SITE = "https://panel.example:8443"
EACH = MOST_GUESSES[Lock.ACCOUNT_FROM_NETWORK]
WRONG = "This passkey didn&#x27;t open it."


@pytest.fixture(autouse=True)
def quick(settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, url=SITE)


def account(email: str, role: str = "") -> User:
    return create_account(email=email, password=PASSWORD, provider_role=role, actor=None)


@pytest.fixture
def ann() -> User:
    return account(ANN)


def added(owner: User, base: str = "/account/") -> tuple[Authenticator, list[str]]:
    """A passkey of this account, made through its page; the recovery codes that were shown."""
    client, key = Client(), Authenticator(SITE)
    client.force_login(owner)
    session = client.session
    session["second_factor"] = True
    session.save()
    typed = {"name": "Ann's phone", "password": PASSWORD}
    options = client.post(f"{base}passkeys/offer/", typed).json()
    done = client.post(f"{base}passkeys/add/", {**typed, "passkey": key.make(options)})
    assert done.status_code in (200, 302), done.context["form"].errors
    return key, re.findall(r"<code>([0-9A-Z-]{19})</code>", done.content.decode())


@pytest.fixture
def key(ann: User) -> Authenticator:
    return added(ann)[0]


def half_in(email: str = ANN, base: str = "/sign-in/") -> Client:
    """Who gave the right password."""
    client = Client()
    done = client.post(base, {"username": email, "password": PASSWORD})
    assert done["Location"].startswith(f"{base}code/")
    return client


def asked(client: Client, step: str = "code/") -> dict:
    return client.post(f"/sign-in/{step}passkey/").json()


def is_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


def test_one_is_made_after_the_password_and_shows_recovery_codes(ann):
    client, key = Client(), Authenticator(SITE)
    client.force_login(ann)
    page = client.get("/account/passkeys/add/", headers={"User-Agent": "Mozilla/5.0 (X11; Linux) Firefox/140.0"})
    assert 'value="Firefox on Linux"' in page.content.decode() and "no scripts" in page.content.decode()
    typed = {"name": "Ann's phone", "password": PASSWORD}
    refused = client.post("/account/passkeys/offer/", {**typed, "password": "wrong"})
    assert "isn't your password" in refused.json()["sentence"]
    options = client.post("/account/passkeys/offer/", typed, headers={"Host": "localhost"}).json()
    assert options["rp"]["id"] == "panel.example", "of the settings, whatever the browser calls us"
    assert ANN not in data(options["user"]["id"]).decode("latin-1")
    for wrong in ({"origin": "https://panel.example"}, {"challenge": text(b"another")}):
        options = client.post("/account/passkeys/offer/", typed).json()
        said = client.post("/account/passkeys/add/", {**typed, "passkey": key.make(options, **wrong)})
        assert "come through" in said.content.decode(), wrong
    assert not SecondFactor.objects.exists()
    assert "come through" in client.post(
        "/account/passkeys/add/", {**typed, "passkey": key.make(options)}
    ).content.decode(), "the challenge was used up by the wrong answer"
    options = client.post("/account/passkeys/offer/", typed).json()
    done = client.post("/account/passkeys/add/", {**typed, "passkey": key.make(options)})
    assert len(re.findall(r"<code>[0-9A-Z-]{19}</code>", done.content.decode())) == 10
    kept = Passkey.objects.get()
    assert (kept.name, kept.sign_count, kept.transports) == ("Ann's phone", 0, ["internal"])
    options = client.post("/account/passkeys/offer/", typed).json()
    assert [each["id"] for each in options["excludeCredentials"]] == [kept.credential_id]
    again = client.post("/account/passkeys/add/", {**typed, "passkey": key.make(options)})
    assert "is here already" in again.content.decode() and Passkey.objects.count() == 1
    own = client.get("/account/").content.decode()
    assert "Ann&#x27;s phone" in own and "10 are left" in own


def test_it_opens_in_place_of_the_code_and_is_audited(ann, key):
    client = half_in()
    page = client.get("/sign-in/code/").content.decode()
    assert "Use a passkey" in page and 'name="code"' not in page, "there is no app"
    assert client.post("/sign-in/code/", {"passkey": key.use(asked(client))})["Location"] == "/"
    assert is_in(client)
    signed_in = AuditEntry.objects.get(action="account.signed_in")
    assert signed_in.after == {"second factor": True, "passkey": "Ann's phone"}
    assert Passkey.objects.get().used_at
    # A recovery code still does, and an app beside it.
    secret = second_factor.new_secret()
    assert second_factor.add(ann, secret, code_of(secret)) == [], "the recovery codes stay"
    client = half_in()
    assert 'name="code"' in client.get("/sign-in/code/").content.decode()
    client.post("/sign-in/code/", {"code": code_of(secret, steps=1)})
    assert is_in(client)


@pytest.mark.parametrize("wrong", [
    {"origin": "https://panel.example"}, {"origin": "http://panel.example:8443"}, {"challenge": text(b"another one")},
    {"name": "example"}, {"flags": 0}, {"handle": text(b"bob")}, {"count": 0},
], ids=str)
def test_an_answer_with_one_thing_wrong_opens_nothing(ann, key, wrong):
    client = half_in()
    client.post("/sign-in/code/", {"passkey": key.use(asked(client))})
    client = half_in()
    said = client.post("/sign-in/code/", {"passkey": key.use(asked(client), **wrong)})
    assert said.status_code == 200 and WRONG in said.content.decode() and not is_in(client)
    refused = AuditEntry.objects.filter(action="account.passkey_refused")
    assert refused.exists() == ("count" in wrong), "a counter that ran back is told"


def test_an_answer_opens_once_and_in_its_own_session_alone(ann, key):
    first, other = half_in(), half_in()
    answer = key.use(asked(first))
    assert WRONG in other.post("/sign-in/code/", {"passkey": answer}).content.decode(), "no challenge there"
    first.post("/sign-in/code/", {"passkey": answer})
    assert is_in(first)
    again = half_in()
    asked(again)
    assert WRONG in again.post("/sign-in/code/", {"passkey": answer}).content.decode()
    challenge, synced = b"of two requests at once", Authenticator(SITE)
    synced.id, synced.key, synced.handle = key.id, key.key, key.handle
    Passkey.objects.update(sign_count=0)
    twice = synced.use({"rpId": "panel.example", "challenge": text(challenge)}, count=0)
    assert passkeys.take(twice, challenge, account=ann)
    assert passkeys.take(twice, challenge, account=ann) is None


@pytest.mark.usefixtures("standard_plan")
def test_of_two_that_send_one_answer_at_once_one_comes_in(ann, key, in_threads):
    challenge = b"of several requests at once"
    answer = key.use({"rpId": "panel.example", "challenge": text(challenge)}, count=0)
    opened = in_threads(lambda number: passkeys.take(answer, challenge, account=ann), *range(4))
    assert sum(each is not None for each in opened) == 1, opened


def test_a_challenge_is_over_after_five_minutes(ann, key, monkeypatch):
    client = half_in()
    answer, now = key.use(asked(client)), passkeys.time.time()
    monkeypatch.setattr(passkeys.time, "time", lambda: now + passkeys.LIFE_S)
    assert WRONG in client.post("/sign-in/code/", {"passkey": answer}).content.decode()


def test_anothers_passkey_is_none_of_this_account(ann, key):
    account(BOB)
    other, _codes = added(User.objects.get(email=BOB))
    client = half_in()
    said = client.post("/sign-in/code/", {"passkey": other.use(asked(client))})
    assert WRONG in said.content.decode() and not is_in(client)
    client.force_login(User.objects.get(email=BOB))
    mine = Passkey.objects.get(factor__user=ann)
    for act in ("rename", "remove"):
        assert client.get(f"/account/passkeys/{mine.pk}/{act}/").status_code == 404


def test_alone_it_signs_in_when_it_asked_for_finger_or_pin(ann, key):
    client = Client()
    page = client.get("/sign-in/").content.decode()
    assert "Sign in with a passkey" in page and "sessionid" not in client.cookies
    options = asked(client, "")
    assert (options["allowCredentials"], options["userVerification"]) == ([], "required")
    refused = client.post("/sign-in/", {"passkey": key.use(options, flags=PRESENT)})
    assert WRONG in refused.content.decode() and not is_in(client)
    done = client.post("/sign-in/", {"passkey": key.use(asked(client, "")), "next": "/account/"})
    assert done["Location"] == "/account/" and is_in(client)
    assert client.session.get_expiry_age() > passkeys.LIFE_S, "and stays as long as any"
    create_account(email="other@letters.test", password=PASSWORD, provider_role="owner", actor=None)
    close_account(ann, actor=None)
    client = Client()
    assert WRONG in client.post("/sign-in/", {"passkey": key.use(asked(client, ""))}).content.decode()


def test_staff_come_by_it_into_the_admin_and_set_it_up_there(settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, staff_second_factor=True)
    owner, client, key = account("owner@provider.test", "owner"), Client(), Authenticator(SITE)
    client.post("/admin/login/", {"username": owner.email, "password": PASSWORD})
    assert "Use a passkey instead" in client.get("/admin/account/second-factor/").content.decode()
    assert client.get("/admin/account/passkeys/add/").status_code == 200
    typed = {"name": "key", "password": PASSWORD}
    options = client.post("/admin/account/passkeys/offer/", typed).json()
    assert client.post("/admin/account/passkeys/add/", {**typed, "passkey": key.make(options)}).status_code == 200
    own = client.get("/admin/account/").content.decode()
    assert "Passkey · added" in own and "Remove…" not in own, "the last one stays"
    client = half_in(owner.email, "/admin/login/")
    assert "Use a passkey" in client.get("/admin/login/code/").content.decode()
    client.post("/admin/login/code/", {"passkey": key.use(asked(client))})
    assert client.get("/admin/").status_code == 200


def test_removal_asks_for_password_and_code_or_passkey_and_the_last_one_stays_where_it_must(ann):
    key, codes = added(ann)
    client = half_in()
    client.post("/sign-in/code/", {"passkey": key.use(asked(client))})
    one = Passkey.objects.get()
    where = f"/account/passkeys/{one.pk}/remove/"
    change_account(ann, second_factor_required=True, actor=None)
    assert client.post(where, {"password": PASSWORD, "code": codes[0]})["Location"] == "/account/"
    assert Passkey.objects.exists() and where not in client.get("/account/").content.decode()
    with pytest.raises(Exception, match="must have a second factor"):
        passkeys.remove(ann, one)
    assert Passkey.objects.exists(), "and all of it is undone"
    change_account(ann, second_factor_required=False, actor=None)
    page = client.get(where).content.decode()
    assert "Or use a passkey" in page and "Recovery code" in page
    for wrong in (
        {"password": PASSWORD}, {"password": "wrong", "code": codes[0]}, {"password": PASSWORD, "passkey": "{}"},
        {"password": PASSWORD, "passkey": " "}, {"password": PASSWORD, "passkey": "\n", "code": " "},
    ):
        refused = client.post(where, wrong)
        assert refused.status_code == 200 and refused.context["form"].errors, wrong
    assert not client.post("/account/recovery-codes/", {"password": PASSWORD, "passkey": " "}).context.get("codes")
    renamed = client.post(f"/account/passkeys/{one.pk}/rename/", {"name": "Old phone"})
    assert renamed.status_code == 302 and "Old phone" in client.get("/account/").content.decode()
    options = client.post("/account/passkeys/prove/").json()
    assert client.post(where, {"password": PASSWORD, "passkey": key.use(options)}).status_code == 302
    assert not SecondFactor.objects.exists(), "with the last one it is off"
    assert client.get("/account/").status_code == 200
    told = AuditEntry.objects.filter(action__startswith="account.").order_by("-pk").values_list("action", flat=True)
    assert list(told[:3])[::-1] == [
        "account.passkey_renamed", "account.passkey_removed", "account.second_factor_removed",
    ]


def test_guessing_is_locked_as_for_codes(ann, key):
    client = half_in()
    for number in range(EACH):
        assert client.post("/sign-in/code/", {"passkey": json.dumps({"n": number})}).status_code == 200
    answer = client.post("/sign-in/code/", {"passkey": key.use(asked(client))})
    assert answer.status_code == 429 and not is_in(client)
    client = Client()
    assert client.post("/sign-in/", {"passkey": key.use(asked(client, ""))}).status_code == 429


NONSENSE = ["x", "[]", "null", "[" * 5000, '{"id": 7}', "x" * 30_000, '{"id": "\\u0000"}', '{"response": {}}']


def test_nonsense_is_a_wrong_answer(ann, key):
    good = json.loads(key.use({"rpId": "panel.example", "challenge": text(b"x")}))
    odd = [*NONSENSE, *(
        json.dumps({**good, "response": {**good["response"], part: value}})
        for part in ("authenticatorData", "clientDataJSON", "signature", "userHandle")
        for value in (None, 7, "", "!", text(b"\x00"), text(b"{}"), text(b"\xff" * 200), ["x"], {})
    )]
    for answer in odd:
        assert passkeys.take(answer, b"x", account=None) is None, answer
    made = json.loads(Authenticator(SITE).make({"rp": {"id": "panel.example"}, "user": {"id": "x"}, "challenge": "eA"}))
    for part in ("attestationObject", "clientDataJSON"):
        for value in (None, 7, "", "!", text(b"\xa0"), text(b"{}"), text(b"\xff" * 200), ["x"]):
            answer = json.dumps({**made, "response": {**made["response"], part: value}})
            with pytest.raises(passkeys.ServiceError):
                passkeys.add(ann, answer, b"x", name="odd")


@pytest.mark.parametrize(("url", "known"), [
    ("https://mail.example.com", passkeys.Site("mail.example.com", "https://mail.example.com")),
    ("https://mail.example.com:443", passkeys.Site("mail.example.com", "https://mail.example.com")),
    ("http://localhost:8000", passkeys.Site("localhost", "http://localhost:8000")),
    ("http://mail.example.com", None), ("https://192.0.2.1", None), ("https://[2001:db8::1]", None),
])
def test_passkeys_are_of_the_panels_address_and_of_no_ip_address(settings, url, known):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, url=url)
    assert passkeys.site() == known
    if known is None:
        page = Client().get("/sign-in/")
        assert "passkey" not in page.content.decode().replace("passkeys.js", "")
        assert "no passkeys at this address" in Client().post("/sign-in/passkey/").json()["sentence"]
