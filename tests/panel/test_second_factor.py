"""The second factor: setting up, the step in the sign-in, recovery codes, removal, who must have one."""

import re
import time
from dataclasses import replace

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from panel.operations.services import change_account, create_account
from panel.rules.lockout import MOST_GUESSES, Lock
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, RecoveryCode, SecondFactor, User
from panel.tenants.services import close_account, set_account_password
from panel.tenants.sign_in import second_factor, views
from tests.support.authenticator import code_of

pytestmark = pytest.mark.django_db

PASSWORD = "an unusual password"
OWNER = "owner@provider.test"
INDEX, LOGIN, CODE = "/admin/", "/admin/login/", "/admin/login/code/"
ENROL, OWN = "/admin/account/second-factor/", "/admin/account/"
REMOVE, RENEW = "/admin/account/second-factor/remove/", "/admin/account/recovery-codes/"
EACH = MOST_GUESSES[Lock.ACCOUNT_FROM_NETWORK]
RFC_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # RFC 6238, appendix B: 12345678901234567890


@pytest.fixture(autouse=True)
def quick(settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def owner() -> User:
    return create_account(email=OWNER, password=PASSWORD, provider_role="owner", actor=None)


@pytest.fixture
def secret() -> str:
    return second_factor.new_secret()


@pytest.fixture
def codes(owner: User, secret: str) -> list[str]:
    """The owner has a second factor; its recovery codes. The code of these 30 seconds is used by that."""
    return second_factor.add(owner, secret, code_of(secret))


@pytest.fixture
def required(settings) -> None:
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, staff_second_factor=True)


def password_step(client: Client, following: str = ""):
    return client.post(LOGIN, {"username": OWNER, "password": PASSWORD, "next": following})


def is_in(client: Client) -> bool:
    return client.get(INDEX).status_code == 200


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("pk").values_list("action", flat=True))


# The arithmetic


@pytest.mark.parametrize(("at_s", "code"), [(59, "287082"), (1111111109, "081804"), (20000000000, "353130")])
def test_codes_are_those_of_rfc_6238(monkeypatch, at_s, code):
    monkeypatch.setattr(second_factor.time, "time", lambda: at_s)
    assert code_of(RFC_SECRET, at_s) == code
    assert second_factor._step_of(RFC_SECRET, code, after=0) == at_s // 30
    assert second_factor._step_of(RFC_SECRET, code, after=at_s // 30) is None


@pytest.mark.parametrize(("steps", "passes"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_clock_may_be_half_a_minute_off(owner, secret, codes, monkeypatch, steps, passes):
    SecondFactor.objects.update(last_step=0)
    now = time.time()
    monkeypatch.setattr(second_factor.time, "time", lambda: now)
    assert bool(second_factor.take(owner, code_of(secret, steps=steps))) is passes


# Setting up


def test_it_is_set_up_with_a_code_and_the_password_and_shows_recovery_codes_once(owner):
    client = Client()
    client.force_login(owner)
    page = client.get(ENROL)
    shown = re.search(r'class="ph-secret">([A-Z2-7 ]+)<', page.content.decode()).group(1).replace(" ", "")
    assert "<svg" in page.content.decode()
    wrong = client.post(ENROL, {"code": "000000", "password": PASSWORD})
    assert second_factor.WRONG in wrong.context["form"].errors["code"]
    assert shown == re.search(r'class="ph-secret">([A-Z2-7 ]+)<', wrong.content.decode()).group(1).replace(" ", "")
    assert client.post(ENROL, {"code": code_of(shown), "password": "wrong"}).context["form"].errors["password"]
    assert not SecondFactor.objects.exists()
    done = client.post(ENROL, {"code": f" {code_of(shown)[:3]} {code_of(shown)[3:]}", "password": PASSWORD})
    found = re.findall(r"<code>([0-9A-Z-]{19})</code>", done.content.decode())
    assert len(set(found)) == second_factor.RECOVERY_CODES
    assert "no-store" in done.headers["Cache-Control"]
    assert client.get(ENROL).status_code == 302, "it is there: nothing is offered"
    assert "account.second_factor_added" in actions()


def test_what_is_stored_opens_nothing(owner, secret, codes):
    factor = SecondFactor.objects.get()
    stored = factor.secret + str(list(RecoveryCode.objects.values_list("digest", flat=True))) + str(actions())
    assert secret not in stored
    assert not any(code in stored or code.replace("-", "") in stored for code in codes)
    assert factor.secret != second_factor.seal(secret), "sealed anew each time"


def test_a_second_one_beside_the_first_is_refused(owner, secret, codes):
    other = second_factor.new_secret()
    with pytest.raises(ServiceError, match="already"):
        second_factor.add(owner, other, code_of(other))
    assert second_factor.unseal(SecondFactor.objects.get().secret) == secret


# The step in the sign-in


def test_the_password_alone_lets_nobody_in(secret, codes):
    client = Client()
    answer = password_step(client, "/admin/tenants/tenant/")
    assert answer.headers["Location"] == f"{CODE}?next=%2Fadmin%2Ftenants%2Ftenant%2F"
    assert not is_in(client)
    page = client.post(answer.headers["Location"], {"code": "000000"})
    assert page.status_code == 200 and second_factor.WRONG in page.context["form"].errors["code"]
    assert not is_in(client)
    done = client.post(answer.headers["Location"], {"code": code_of(secret, steps=1)})
    assert done.headers["Location"] == "/admin/tenants/tenant/"
    assert is_in(client)
    assert AuditEntry.objects.first().after == {"second factor": True}


def test_a_code_opens_once(secret, codes):
    code = code_of(secret, steps=1)
    for expected in (302, 200):
        client = Client()
        password_step(client)
        assert client.post(CODE, {"code": code}).status_code == expected
    assert not is_in(client)


@pytest.mark.usefixtures("standard_plan")
def test_of_two_that_use_one_code_at_once_one_comes_in(owner, secret, codes, in_threads):
    code = code_of(secret, steps=1)
    opened = in_threads(lambda number: second_factor.take(owner, code), *range(6))
    assert sum(each is not None for each in opened) == 1, opened
    opened = in_threads(lambda number: second_factor.take(owner, codes[0]), *range(6))
    assert sum(each is not None for each in opened) == 1, opened


def test_a_recovery_code_opens_once_and_says_how_many_are_left(codes):
    client = Client()
    password_step(client)
    assert "Recovery code" in client.get(f"{CODE}?recovery=1").content.decode()
    typed = codes[3].lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert client.post(CODE, {"code": typed}).status_code == 302
    assert "9 are left" in client.get(INDEX).content.decode()
    again = Client()
    password_step(again)
    assert again.post(CODE, {"code": codes[3]}).status_code == 200
    assert actions().count("account.recovery_code_used") == 1


@pytest.mark.parametrize("what", ["late", "password", "closed", "none"])
def test_the_second_step_needs_a_first_one_that_still_holds(owner, secret, codes, monkeypatch, what):
    client = Client()
    if what != "none":
        password_step(client)
    if what == "late":
        now = views.time.time()
        monkeypatch.setattr(views.time, "time", lambda: now + views.PENDING_S)
    elif what == "password":
        set_account_password(owner, "another unusual one", actor=None)
    elif what == "closed":
        create_account(email="other@provider.test", password=PASSWORD, provider_role="owner", actor=None)
        close_account(owner, actor=None)
    for answer in (client.get(CODE), client.post(CODE, {"code": code_of(secret, steps=1)})):
        assert answer.headers["Location"].startswith(LOGIN)
    assert not is_in(client)


def test_guessing_codes_is_locked_like_guessing_passwords(secret, codes):
    client = Client()
    password_step(client)
    assert [client.post(CODE, {"code": f"{number:06}"}).status_code for number in range(EACH)] == [200] * EACH
    locked = client.post(CODE, {"code": code_of(secret, steps=1)})
    assert locked.status_code == 429
    assert "Try again in 15 minutes" in locked.content.decode()
    assert password_step(Client()).status_code == 429


ODD = ["", "12345", "1234567", "١٢٣٤٥٦", "\x00", "x" * 5000, "<script>alert(1)</script>", "-"]


@pytest.mark.parametrize("code", ODD, ids=range(len(ODD)))
def test_an_odd_code_is_a_wrong_one(codes, code):
    client = Client()
    password_step(client)
    page = client.post(CODE, {"code": code})
    assert page.status_code == 200 and page.context["form"].errors["code"]
    assert "<script>alert(1)" not in page.content.decode()


def test_another_secret_key_closes_the_door_and_a_recovery_code_opens_it(owner, secret, codes, settings):
    settings.SECRET_KEY = "another secret key, of thirty-two characters and more"
    assert second_factor.take(owner, code_of(secret, steps=1)) is None
    assert second_factor.take(owner, codes[0])


# Recovery codes and removal


@pytest.fixture
def inside(owner: User, codes: list[str]) -> Client:
    client = Client()
    password_step(client)
    client.post(CODE, {"code": codes[0]})
    assert is_in(client)
    return client


def test_removal_asks_for_password_and_code(inside, secret, codes):
    assert inside.get(REMOVE).status_code == 200
    for data in ({"password": PASSWORD}, {"code": codes[1]}, {"password": "wrong", "code": codes[1]},
                 {"password": PASSWORD, "code": "000000"}):
        assert inside.post(REMOVE, data).context["form"].errors
    assert SecondFactor.objects.exists()
    assert RecoveryCode.objects.filter(used_at=None).count() == 9, "a wrong password uses up no code"
    assert inside.post(REMOVE, {"password": PASSWORD, "code": code_of(secret, steps=1)}).status_code == 302
    assert not SecondFactor.objects.exists()
    entry = AuditEntry.objects.first()
    assert (entry.action, entry.actor_name, entry.ip) == ("account.second_factor_removed", OWNER, "127.0.0.1")
    assert password_step(Client()).headers["Location"] == INDEX


def test_new_recovery_codes_replace_the_old_ones(inside, owner, codes):
    page = inside.post(RENEW, {"password": PASSWORD, "code": codes[1]})
    new = re.findall(r"<code>([0-9A-Z-]{19})</code>", page.content.decode())
    assert len(new) == 10 and not set(new) & set(codes)
    assert second_factor.take(owner, codes[2]) is None
    assert second_factor.take(owner, new[0]).left == 9


# Who must have one


@pytest.mark.usefixtures("required")
def test_who_must_have_one_sees_nothing_else_until_it_is_set_up(owner):
    client = Client()
    assert password_step(client).headers["Location"] == INDEX
    for path in (INDEX, OWN, REMOVE, "/admin/tenants/tenant/", "/admin/password_change/", "/"):
        assert client.get(path).headers["Location"] == ENROL, path
    assert client.post("/admin/tenants/tenant/add/", {"name": "Sneaked in"}).headers["Location"] == ENROL
    page = client.get(ENROL)
    secret = re.search(r'class="ph-secret">([A-Z2-7 ]+)<', page.content.decode()).group(1).replace(" ", "")
    client.post(ENROL, {"code": code_of(secret), "password": PASSWORD})
    assert is_in(client)
    assert client.get(REMOVE).headers["Location"] == OWN, "it can't be removed by its owner"
    client.post(REMOVE, {"password": PASSWORD, "code": code_of(secret, steps=1)})
    assert SecondFactor.objects.exists()


def test_a_single_account_can_be_made_to_have_one_and_its_open_session_is_asked(owner, secret, codes):
    client = Client()
    client.force_login(owner)  # a session that began without it
    assert is_in(client)
    change_account(owner, second_factor_required=True, actor=None)
    assert client.get(INDEX).headers["Location"] == LOGIN
    assert not is_in(client)


def test_an_owner_removes_anothers_and_support_and_operator_do_not(owner):
    other = create_account(email="other@provider.test", password=PASSWORD, provider_role="operator", actor=None)
    secret = second_factor.new_secret()
    second_factor.add(other, secret, code_of(secret))
    where = reverse("admin:tenants_user_remove_second_factor", args=(other.pk,))
    for role in ("support", "operator"):
        client = Client()
        client.force_login(create_account(
            email=f"{role}2@provider.test", password=PASSWORD, provider_role=role, actor=None
        ))
        assert client.post(where, {"reason": ""}).status_code == 403
    client = Client()
    client.force_login(owner)
    assert client.post(where, {"reason": "lost the phone"}).status_code == 302
    assert not SecondFactor.objects.exists()
    assert AuditEntry.objects.first().reason == "lost the phone"


@pytest.mark.usefixtures("required")
def test_the_command_line_resets_it_also_where_it_must_be(codes, capsys):
    call_command("account", "second-factor", "--reset", OWNER, "--reason", "lost the phone")
    assert capsys.readouterr().out == f"The account {OWNER} has no second factor and must have one.\n"
    assert not SecondFactor.objects.exists()
    assert AuditEntry.objects.first().reason == "lost the phone"


def test_the_command_line_requires_it(owner, capsys):
    call_command("account", "second-factor", OWNER, "--require")
    assert capsys.readouterr().out == f"The account {OWNER} has no second factor and must have one.\n"
    call_command("account", "second-factor", OWNER, "--optional")
    assert capsys.readouterr().out == f"The account {OWNER} has no second factor.\n"
