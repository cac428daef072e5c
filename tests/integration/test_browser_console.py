"""The console in a real browser: a tenant's owner, and then the person of a mailbox that the owner has added."""

import base64
import re
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from playwright.sync_api import Page, Route

from tests.support.browser import ADMIN, ADMIN_PASSWORD, open_page, picture
from tests.support.hostile_html import SPECIMENS
from tests.support.installation import PASSWORD, until

pytestmark = [pytest.mark.browser, pytest.mark.once("sqlite")]

OWNER, OWNER_PASSWORD = "boss@elsewhere.example", "an unusual password"
ANN, FIRST_PASSWORD, NEW_PASSWORD = "ann@demo.test", "a first unusual one", "another unusual one"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
MAIN = "main .btn-primary"


def sign_in(page: Page, login: str, password: str) -> None:
    open_page(page, "/sign-in/")
    give_login(page, login, password)
    page.wait_for_selector(".side")


def give_login(page: Page, login: str, password: str) -> None:
    page.fill("[name=username]", login)
    page.fill("[name=password]", password)
    page.click("#login-form button[type=submit]")


def virtual_device(page: Page) -> Callable[..., object]:
    """A device that keeps passkeys and knows its owner; what it is told afterwards goes through the answer."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    made = devtools.send("WebAuthn.addVirtualAuthenticator", {"options": {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
        "isUserVerified": True, "automaticPresenceSimulation": True,
    }})
    return lambda method, **more: devtools.send(method, {"authenticatorId": made["authenticatorId"], **more})


def sign_out(page: Page) -> None:
    page.evaluate("document.querySelector(\"form[action='/sign-out/']\").submit()")
    page.wait_for_url("**/sign-in/")


def follow(page: Page, link: str) -> None:
    """Click what leads to another page, and be there."""
    with page.expect_navigation():
        page.click(link)


def send(page: Page, **fields: str) -> None:
    """Fill the page's form in, and send it by its one main button."""
    for name, value in fields.items():
        page.fill(f"main [name={name}]", value)
    follow(page, MAIN)
    assert page.locator(".fault").count() == 0, page.inner_text("main")


def ties_the_mailbox(page: Page) -> None:
    """The owner's sign-in opens the person's mailbox as well."""
    page.goto("/account/mailboxes/add/")
    send(page, address=ANN, mailbox_password=NEW_PASSWORD, password=OWNER_PASSWORD)
    page.click("button[popovertarget=orgs]")
    follow(page, ".menu-org form[action$='/open/'] button")
    assert page.url.endswith("/me/") and ANN in page.inner_text(".org")


def looks_as_staff(page: Page, tenant: str, reason: str) -> None:
    """The provider's, from the admin into the tenant's console: sees it, changes nothing, and leaves."""
    page.context.clear_cookies()
    page.goto("/sign-in/")
    give_login(page, ADMIN, ADMIN_PASSWORD)
    page.wait_for_url("**/admin/")
    of_the_tenant = f"/admin/tenants/tenant/{tenant}/"
    page.goto(f"{of_the_tenant}change/")
    # For later: what lets the tenant have customers.
    follow(page, "#content a[href*='/tenants/plan/']")
    page.fill("[name=customers]", "2")
    page.check("[name=for_customers]")
    follow(page, "[name=_save]")
    page.goto(f"{of_the_tenant}view-as/")
    page.fill("[name=reason]", reason)
    follow(page, "#content form button[type=submit]")
    assert page.locator(".looking").is_visible() and page.request.get(f"{page.url}aliases/add/").status == 403
    picture(page, "console-looking")
    follow(page, ".looking button")
    assert page.url.endswith(f"{of_the_tenant}change/")
    page.context.clear_cookies()


def adds_a_customer(page: Page) -> None:
    """And goes into its console, as what the owner is here."""
    follow(page, ".side a[href$='/customers/']")
    follow(page, MAIN)
    send(page, name="Corner shop", owner="new@elsewhere.example")
    assert "Corner shop" in page.inner_text("h1")
    follow(page, MAIN)
    assert "Corner shop" in page.inner_text(".org")


def hostile_letter() -> bytes:
    """All of it in one message, with a picture that came along, one elsewhere, and a link."""
    markup = (
        "<style>@import 'https://evil.test/i'; .sale { color: #008000; position: fixed; content: url(//evil.test/c) }"
        ".behind { background: #fff url(https://pictures.test/behind.png) } a[href]::after { content: 'x' !important }"
        "@font-face { font-family: F; src: url(https://evil.test/f) }</style>"
        '<p class="sale behind">Our spring sale</p><img src="cid:logo" alt="logo" width="40">'
        '<img src="https://pictures.test/a.png" alt="sale"><img src="http://pictures.test/b.png"><p><a href="https://bank.test@shop.test/sale">bank.test</a></p>'
        + "".join(f"<div><table><tr><td>{each}</td></tr></table></div>" for each in SPECIMENS)
    )
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = f"Shop <{ANN}>", ANN, "Spring sale"
    letter.set_content("Our spring sale, plain")
    letter.add_alternative(markup.replace("\x00", "").encode("utf-8", "replace").decode(), subtype="html")
    letter.get_payload()[1].add_related(PNG, "image", "png", cid="<logo>")
    return letter.as_bytes(policy=SMTP)


def reads_a_hostile_letter(page: Page) -> None:
    """Nothing of it is run or asked for; pictures once they are wanted, by https alone; a link opens beside."""
    asked: list[str] = []
    dialogues: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        assert "referer" not in route.request.headers
        is_page = route.request.resource_type == "document"
        route.fulfill(body="<p id=at>there<script>at.textContent = 'ran'</script>" if is_page else PNG,
                      content_type="text/html" if is_page else "image/png")

    page.context.route(re.compile(r"^(?!http://localhost[:/]|data:)"), answer)
    page.on("dialog", lambda dialogue: (dialogues.append(dialogue.message), dialogue.dismiss()))
    page.goto("/me/mail/")
    follow(page, "main >> text=Spring sale")
    frame = page.frame_locator(".letter-frame")
    frame.locator("text=Our spring sale").wait_for()
    assert frame.locator("img[alt=logo]").evaluate("picture => picture.naturalWidth") == 1
    assert frame.locator("img[alt=sale]").get_attribute("src") is None
    of_the_sheet = frame.locator("p.sale").evaluate(
        "p => [getComputedStyle(p).color, getComputedStyle(p).position, getComputedStyle(p).backgroundImage]"
    )
    assert of_the_sheet == ["rgb(0, 128, 0)", "static", "none"]
    mark = frame.locator("a[data-to='shop.test']").evaluate("a => getComputedStyle(a, '::after').content")
    assert "shop.test" in mark
    at = page.url
    picture(page, "console-me-letter")
    follow(page, "main .banner .btn")
    frame.locator("img[alt=sale]").wait_for()
    until(lambda: len(asked) > 1, what="the pictures")
    page.wait_for_load_state("networkidle")
    by_the_corpus = {each for each in asked if each.startswith("https://evil.test/q")}  # its one picture by https
    assert set(asked) == {"https://pictures.test/a.png", "https://pictures.test/behind.png"} | by_the_corpus
    with page.expect_popup() as opened:
        frame.locator("a[data-to='shop.test']").click()
    opened.value.wait_for_selector("text=ran")
    assert opened.value.url == "https://shop.test/sale"
    opened.value.close()
    # The frame's page alone is as bound.
    asked.clear()
    page.goto(f"{at}formatted/")
    page.wait_for_selector("text=Our spring sale")
    page.wait_for_load_state("networkidle")
    page.goto(f"{at}?as=text")
    page.wait_for_selector("text=Our spring sale, plain")
    assert not asked and not dialogues


def test_an_owner_adds_and_stops_and_the_person_does_the_rest(page, posthouse):
    posthouse.manage(
        "account", "create", OWNER, "--tenant", "Demo", "--role", "owner", "--password-stdin",
        typed=OWNER_PASSWORD + "\n",
    )
    # The owner: a domain that is still to be proved, a mailbox, a password for its program, an alias.
    sign_in(page, OWNER, OWNER_PASSWORD)
    picture(page, "console-home")
    follow(page, ".side >> text=Domains")
    follow(page, MAIN)
    send(page, name="acme.example")
    assert "acme.example" in page.inner_text("h1")
    picture(page, "console-domain")
    # As over plain http, where a page gets no clipboard.
    page.evaluate("delete Navigator.prototype.clipboard")
    page.evaluate("addEventListener('copy', () => { window.copied = getSelection().toString() })")
    button = page.locator("main [data-copy]").first
    button.click()
    page.wait_for_function("wanted => window.copied === wanted", arg=button.get_attribute("data-copy"))
    page.wait_for_function("document.getElementById('said').textContent")
    follow(page, ".side >> text=Mailboxes")
    picture(page, "console-mailboxes")
    follow(page, MAIN)
    page.check("main [name=way][value=typed]")
    picture(page, "console-add-mailbox")
    send(page, address=ANN, name="Ann", password=FIRST_PASSWORD)
    follow(page, ".side >> text=Mailboxes")
    follow(page, f"main >> text={ANN}")
    at_ann = page.url
    picture(page, "console-mailbox")
    follow(page, "text=New app password")
    send(page, label="web shop")
    secret = re.search(r"\bph-?[\w-]{20,}", page.inner_text("main"))
    assert secret, "shown once"
    picture(page, "console-secret")
    page.goto(at_ann)
    assert secret[0] not in page.content()
    follow(page, ".side >> text=Aliases")
    picture(page, "console-aliases")
    follow(page, MAIN)
    send(page, address="info@demo.test", targets=ANN, description="What the shop's page names")

    # What arrives and what is sent stands in the log.
    def sends() -> bool:
        with posthouse.client() as client:
            client.login(ANN, secret[0])
            client.sendmail(ANN, ["info@demo.test"], "From: ann@demo.test\r\nSubject: Order 1024\r\n\r\nHello.\r\n")
        return True

    until(sends, what="the new mailbox")
    posthouse.inbox(ANN).wait()
    follow(page, ".side >> text=Messages")
    page.fill("main [name=q]", "to:info@demo.test status:delivered")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    picture(page, "console-messages")
    follow(page, "main >> text=Order 1024")
    page.wait_for_selector("h1:has-text('Order 1024')")
    picture(page, "console-message")
    follow(page, ".side >> text=Usage")
    picture(page, "console-usage")
    follow(page, ".side >> text=Audit log")
    assert "acme.example" in page.inner_text("main")
    follow(page, ".side >> text=People")
    picture(page, "console-people")
    sign_out(page)

    # The person: another password, an answer while away, and the letter to read.
    sign_in(page, ANN, FIRST_PASSWORD)
    picture(page, "console-me")
    page.goto("/me/sign-ins/password/")
    send(page, password=FIRST_PASSWORD, new=NEW_PASSWORD, again=NEW_PASSWORD)
    page.goto("/me/rules/")
    page.check("main [name=vacation]")
    send(page, vacation_text="I am away until Monday.")
    picture(page, "console-rules")
    for where in ("mail", "passwords", "sent", "sign-ins", "settings"):
        assert page.goto(f"/me/{where}/").ok, where
        picture(page, f"console-me-{where}")
    page.goto("/me/mail/")
    follow(page, "main >> text=Order 1024")
    page.wait_for_selector("text=Hello.")
    with posthouse.client() as client:
        client.login(ANN, secret[0])
        client.sendmail(ANN, [ANN], hostile_letter())
    posthouse.inbox(ANN).wait(2)
    reads_a_hostile_letter(page)
    sign_out(page)
    sign_in(page, ANN, NEW_PASSWORD)
    sign_out(page)

    # And the owner again: with a passkey from now on, first after the password, then in place of it.
    device = virtual_device(page)
    sign_in(page, OWNER, OWNER_PASSWORD)
    ties_the_mailbox(page)
    page.goto("/account/")
    follow(page, "main >> text=Add a passkey")
    page.fill("main [name=password]", "not the password")
    page.click(MAIN)
    page.wait_for_selector("text=This isn't your password.")
    picture(page, "console-add-passkey")
    page.fill("main [name=password]", OWNER_PASSWORD)
    follow(page, MAIN)
    assert page.locator("main li code").count() == 10
    follow(page, MAIN)
    picture(page, "console-account")
    sign_out(page)
    give_login(page, OWNER, OWNER_PASSWORD)
    page.wait_for_url("**/sign-in/code/**")
    picture(page, "console-second-step")
    follow(page, "text=Use a passkey")
    page.wait_for_selector(".side")
    sign_out(page)
    device("WebAuthn.setUserVerified", isUserVerified=False)
    page.click("text=Sign in with a passkey")
    page.wait_for_selector("text=That was cancelled")
    picture(page, "console-sign-in")
    device("WebAuthn.setUserVerified", isUserVerified=True)
    follow(page, "text=Sign in with a passkey")
    page.wait_for_selector(".side")

    # Stopped, with a reason that the person's program is told.
    page.goto(at_ann)
    follow(page, "main >> text=Suspend")
    page.check("main [name=what] >> nth=0")
    send(page, reason="left the company")
    assert "left the company" in page.inner_text("main")
    with posthouse.client("shop@demo.test", PASSWORD) as client:
        assert client.noop()[0] == 250

    # The provider looked, and the tenant reads why; then it has customers of its own.
    looks_as_staff(page, at_ann.split("/t/")[1].split("/")[0], "asked for help")
    page.goto("/sign-in/")
    follow(page, "text=Sign in with a passkey")
    page.wait_for_selector(".side")
    assert "asked for help" in page.inner_text("main")
    adds_a_customer(page)
