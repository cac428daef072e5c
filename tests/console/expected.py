"""What each address of the console answers, to whom: whoever adds one says it here.

By name of the address. Members are those of the tenant in it, and of a tenant above it, with their roles.
"""

from dataclasses import dataclass

PAGE, SIGN_IN, AWAY = "page", "to the sign-in", "to another page"
REFUSED, NOTHING, NOT_SO = "403", "404", "405"

Answers = tuple[str, str]  # to GET, and to POST without any field

LEVELS = {"viewer": 1, "admin": 2, "owner": 3, "reseller": 3, "linked owner": 3}
STAFF = ("support", "operator", "support viewing")
PERSONS = ("person", "linked owner")  # the latter's account is tied to the mailbox
VIEWING = "support viewing"  # looks into the tenant: sees what a viewer sees, and is refused all else


@dataclass(frozen=True)
class OfATenant:
    """A tenant's page: from which role on it is seen, and from which one a POST is looked at.

    `post` is what that POST without fields answers: PAGE (the form again) or AWAY.
    """

    role: str = "viewer"
    change: str = ""  # nobody changes anything on it
    post: str = PAGE
    get: str = PAGE

    def of(self, role: str) -> Answers:
        if role in ("anonymous", "closed"):
            return SIGN_IN, SIGN_IN
        if role == VIEWING:
            return self.of("viewer")[0], REFUSED
        if role not in LEVELS:
            return NOTHING, NOTHING
        level = LEVELS[role]
        get = self.get if level >= LEVELS[self.role] else REFUSED
        if not self.change:
            return get, NOT_SO
        return get, self.post if level >= LEVELS[self.change] else REFUSED


@dataclass(frozen=True)
class OfAPerson:
    """A person's page. `post`: what a POST without fields answers, if there is one."""

    post: str = NOT_SO
    get: str = PAGE

    def of(self, role: str) -> Answers:
        if role in ("anonymous", "closed"):
            return SIGN_IN, SIGN_IN
        return (self.get, self.post) if role in PERSONS else (NOTHING, NOTHING)


@dataclass(frozen=True)
class OfAnAccount:
    """A page of a panel account that isn't the provider's."""

    post: str = NOT_SO
    get: str = PAGE

    def of(self, role: str) -> Answers:
        if role in ("anonymous", "closed"):
            return SIGN_IN, SIGN_IN
        return (NOTHING, NOTHING) if role in (*STAFF, "person") else (self.get, self.post)


@dataclass(frozen=True)
class OfATie(OfAnAccount):
    """What a panel account does with a mailbox that it is tied to."""

    get: str = NOT_SO
    post: str = NOTHING

    def of(self, role: str) -> Answers:
        return (NOT_SO, AWAY) if role == "linked owner" else super().of(role)


@dataclass(frozen=True)
class OfAVisit:
    """What the provider's staff do to their look into the tenant."""

    post: str = AWAY

    def of(self, role: str) -> Answers:
        if role in ("anonymous", "closed"):
            return SIGN_IN, SIGN_IN
        return (NOT_SO, self.post) if role == VIEWING else (NOTHING, NOTHING)


@dataclass(frozen=True)
class OfAnybody:
    """`signed_in`: what it answers to whoever is signed in."""

    answers: Answers
    signed_in: Answers | None = None

    def of(self, role: str) -> Answers:
        return self.answers if role in ("anonymous", "closed") else self.signed_in or self.answers


EXPECTED: dict[str, OfATenant | OfAPerson | OfAnAccount | OfAVisit | OfAnybody] = {
    # The way in
    "start": OfAnybody((SIGN_IN, SIGN_IN), (AWAY, AWAY)),
    "sign-in": OfAnybody((PAGE, PAGE), (AWAY, PAGE)),
    "sign-in-code": OfAnybody((SIGN_IN, SIGN_IN)),
    "sign-in-passkey": OfAnybody((NOT_SO, PAGE)),
    "sign-in-code-passkey": OfAnybody((NOT_SO, PAGE)),
    "sign-out": OfAnybody((NOT_SO, SIGN_IN)),
    "language": OfAnybody((AWAY, AWAY)),
    "invitation": OfAnybody((PAGE, PAGE)),
    "tenants": OfAnAccount(),
    # A panel account's own
    "account-own": OfAnAccount(),
    "account-password": OfAnAccount(post=PAGE),
    "account-end-all-sessions": OfAnAccount(get=NOT_SO, post=SIGN_IN),
    "account-end-session": OfAnAccount(get=NOT_SO, post=AWAY),
    "account-second-factor": OfAnAccount(post=PAGE),
    "account-remove-second-factor": OfAnAccount(get=AWAY, post=AWAY),
    "account-recovery-codes": OfAnAccount(get=AWAY, post=AWAY),
    "account-add-mailbox": OfAnAccount(post=PAGE),
    "account-end-tie": OfAnAccount(get=NOT_SO, post=AWAY),
    "account-open-mailbox": OfATie(),
    "account-add-passkey": OfAnAccount(get=AWAY, post=AWAY),  # at this address there are none
    "account-offer-passkey": OfAnAccount(get=NOT_SO, post=PAGE),
    "account-prove-passkey": OfAnAccount(get=NOT_SO, post=PAGE),
    "account-rename-passkey": OfAnAccount(get=NOTHING, post=NOTHING),
    "account-remove-passkey": OfAnAccount(get=NOTHING, post=NOTHING),
    # A tenant's
    "home": OfATenant(),
    "mailboxes": OfATenant(),
    "add-mailbox": OfATenant(role="admin", change="admin"),
    "export-mailboxes": OfATenant(),
    "add-mailboxes": OfATenant(role="admin", change="admin"),
    "mailbox": OfATenant(),
    "mailbox-change": OfATenant(role="admin", change="admin", post=AWAY),
    "mailbox-password": OfATenant(role="admin", change="admin"),
    "mailbox-recovery": OfATenant(role="admin", change="admin", post=AWAY),
    "remove-mailbox-factor": OfATenant(role="admin", change="admin", post=AWAY),
    "suspend-mailbox": OfATenant(role="admin", change="admin"),
    "resume-mailbox": OfATenant(role="admin", change="admin", post=AWAY),
    "close-mailbox": OfATenant(role="admin", change="admin", post=AWAY),
    "restore-mailbox": OfATenant(role="admin", change="admin", post=AWAY),
    "app-passwords": OfATenant(),
    "add-app-password": OfATenant(role="admin", change="admin"),
    "freeze-password": OfATenant(role="admin", change="admin"),
    "unfreeze-password": OfATenant(role="admin", change="admin", post=AWAY),
    "revoke-password": OfATenant(role="admin", change="admin", post=AWAY),
    "aliases": OfATenant(),
    "add-alias": OfATenant(role="admin", change="admin"),
    "alias": OfATenant(role="admin", change="admin"),
    "renew-alias": OfATenant(role="admin", change="admin", get=AWAY, post=AWAY),
    "remove-alias": OfATenant(role="admin", change="admin", post=AWAY),
    "domains": OfATenant(),
    "add-domain": OfATenant(role="admin", change="admin"),
    "domain": OfATenant(),
    "check-domain": OfATenant(change="admin", get=AWAY, post=AWAY),
    "domain-zone": OfATenant(),
    "domain-letter": OfATenant(),
    "domain-names": OfATenant(change="admin"),
    "remove-domain-name": OfATenant(role="admin", change="admin", post=AWAY),
    "close-domain": OfATenant(role="admin", change="admin", post=AWAY),
    "restore-domain": OfATenant(change="admin", get=AWAY, post=AWAY),
    "messages": OfATenant(),
    "messages-export": OfATenant(),
    "message": OfATenant(),
    "message-try": OfATenant(change="admin", post=AWAY, get=AWAY),
    "message-give-up": OfATenant(role="admin", change="admin", post=AWAY),
    "usage": OfATenant(),
    "usage-export": OfATenant(),
    "settings": OfATenant(),
    "require-second-factor": OfATenant(role="owner", change="owner", post=AWAY),
    "require-people-second-factor": OfATenant(role="owner", change="owner", post=AWAY),
    "close-tenant": OfATenant(role="owner", change="owner"),
    "undo-closing": OfATenant(role="owner", change="owner", post=AWAY, get=AWAY),
    "search": OfATenant(),
    "customers": OfATenant(),
    "add-customer": OfATenant(role="owner", change="owner"),
    "customer": OfATenant(),
    "change-customer": OfATenant(role="owner", change="owner"),
    "suspend-customer": OfATenant(role="admin", change="admin"),
    "resume-customer": OfATenant(role="admin", change="admin", post=AWAY),
    "close-customer": OfATenant(role="owner", change="owner", post=AWAY),
    "restore-customer": OfATenant(role="owner", change="owner", post=AWAY),
    "people": OfATenant(),
    "add-member": OfATenant(role="admin", change="admin"),
    "invite-again": OfATenant(role="admin", change="admin", get=AWAY, post=AWAY),
    "withdraw-invitation": OfATenant(role="admin", change="admin", get=AWAY, post=AWAY),
    "member": OfATenant(role="admin", change="admin"),
    "remove-member": OfATenant(role="admin", change="admin", post=AWAY),
    "audit": OfATenant(),
    "leave": OfAVisit(),
    # A person's
    "me": OfAPerson(),
    "me-settings": OfAPerson(),
    "me-apple": OfAPerson(),
    "me-mail": OfAPerson(),
    "me-letter": OfAPerson(get=NOTHING),  # there is no mail
    "me-letter-frame": OfAPerson(get=NOTHING),
    "me-letter-pictures": OfAPerson(get=NOTHING),
    "me-attachment": OfAPerson(get=NOTHING),
    "me-passwords": OfAPerson(),
    "me-add-password": OfAPerson(post=PAGE),
    "me-freeze-password": OfAPerson(post=AWAY),
    "me-unfreeze-password": OfAPerson(get=AWAY, post=AWAY),
    "me-revoke-password": OfAPerson(post=AWAY),
    "me-rules": OfAPerson(post=PAGE),
    "me-sent": OfAPerson(),
    "me-sent-message": OfAPerson(),
    "me-sign-ins": OfAPerson(),
    "me-password": OfAPerson(post=PAGE),
    "me-recovery": OfAPerson(post=PAGE),
    "me-send-recovery-again": OfAPerson(get=NOT_SO, post=AWAY),
    "me-cancel-recovery": OfAPerson(get=NOT_SO, post=AWAY),
    "me-confirm-recovery": OfAPerson(post=AWAY),
    "me-second-factor": OfAPerson(post=PAGE),
    "me-remove-second-factor": OfAPerson(get=AWAY, post=AWAY),
    "me-recovery-codes": OfAPerson(get=AWAY, post=AWAY),
    "me-add-passkey": OfAPerson(get=AWAY, post=AWAY),  # at this address there are none
    "me-offer-passkey": OfAPerson(get=NOT_SO, post=PAGE),
    "me-prove-passkey": OfAPerson(get=NOT_SO, post=PAGE),
    "me-rename-passkey": OfAPerson(get=NOTHING, post=NOTHING),
    "me-remove-passkey": OfAPerson(get=NOTHING, post=NOTHING),
    "me-freeze-sign-in": OfAPerson(post=AWAY),
    "me-add-account": OfAPerson(post=PAGE),
    "me-end-tie": OfAPerson(get=NOT_SO, post=AWAY),
    "me-end-sessions": OfAPerson(get=NOT_SO, post=AWAY),
    "me-end-session": OfAPerson(get=NOT_SO, post=AWAY),
}

# How many questions a page asks of the database, whichever that is, in the house as it has grown; others may ask
# MOST_QUESTIONS. Whoever makes one ask more says so here, and why in the commit.
MOST_QUESTIONS = 15
_ASKED = {
    2: "sign-in",
    5: "invitation me-settings me-apple me-mail me-add-password",
    6: (
        "account-password messages-export me-freeze-password me-revoke-password me-rules me-password "
        "me-recovery me-confirm-recovery me-add-account"
    ),
    7: (
        "account-add-mailbox export-mailboxes add-domain domain-zone close-tenant search add-member "
        "me-passwords me-freeze-sign-in"
    ),
    8: (
        "mailbox-password mailbox-recovery remove-mailbox-factor suspend-mailbox resume-mailbox "
        "close-mailbox restore-mailbox add-app-password add-alias remove-alias domain-letter usage-export "
        "suspend-customer resume-customer close-customer restore-customer member remove-member audit"
    ),
    9: (
        "add-mailboxes app-passwords freeze-password unfreeze-password revoke-password alias "
        "remove-domain-name require-second-factor require-people-second-factor customers customer"
    ),
    10: "account-second-factor add-mailbox aliases message message-give-up add-customer me-sent",
    11: "account-own mailbox-change close-domain settings people",
    12: "domains domain domain-names change-customer me-sent-message me-second-factor",
    13: "messages me-sign-ins",
    14: "mailboxes usage me",
    15: "home mailbox",
}
QUESTIONS = {name: count for count, names in _ASKED.items() for name in names.split()}
