"""What a mailbox and its passwords may do now and why, in a sentence: the same for the provider and its tenant."""

from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _

from panel.domains.models import Proof
from panel.mailboxes.models import Credential, Mailbox
from panel.tenants import standing
from panel.tenants.models import User
from panel.tenants.shown import moment
from panel.tenants.sign_in import second_factor

# What `of_mailbox` and `of_credential` read of a mailbox, for select_related.
READ = (
    "address__domain__tenant__parent__parent", "address__tenant__plan", "address__tenant__parent__parent",
)


def of_mailbox(mailbox: Mailbox, reader: User) -> standing.Standing:
    """What holds for it: one query where something is in its way, else none. Select READ with it."""
    address, domain = mailbox.address, mailbox.address.domain
    # Whatever else can hold it back: its domain, and the tenants of both, with theirs.
    above = [domain, *standing.with_parents(address.tenant), *standing.with_parents(domain.tenant)]
    return standing.standing(mailbox, above, reader, _active(Proof(domain.proof)))


def _active(proof: Proof) -> standing.Standing:
    """What a mailbox does that nobody suspended: its domain's proof decides."""
    if proof == Proof.PROVED:
        return standing.Standing("good", _("active"), _("Sends and receives."))
    if proof == Proof.PENDING:
        return standing.Standing(
            "warn", _("not proved"), _("Neither sends nor receives yet: the ownership of its domain isn't proved.")
        )
    return standing.Standing(
        "bad", _("proof lapsed"), _("Receives, but can't send: the proof of its domain's ownership lapsed.")
    )


def of_credential(credential: Credential, of_its_mailbox: standing.Standing) -> standing.Standing:
    """What holds for a password of a mailbox with this standing."""
    if credential.frozen_at:
        return standing.Standing("bad", _("frozen"), format_html(
            _("Frozen {}{}. Nobody logs in or sends with it until it is thawed."), moment(credential.frozen_at),
            standing.because(credential.frozen_reason),
        ))
    if credential.expires_at and credential.expires_at <= timezone.now():
        return standing.Standing("off", _("expired"), format_html(
            _("Expired {}. Nobody logs in or sends with it."), moment(credential.expires_at)
        ))
    if not of_its_mailbox.may_log_in:
        return standing.Standing(
            "off", _("mailbox {word}").format(word=of_its_mailbox.word),
            format_html(_("Its mailbox: {}"), of_its_mailbox.sentence),
        )
    if credential.kind == Credential.Kind.MAIN and second_factor.of(credential.mailbox.person):
        return standing.Standing(
            "good", _("works"),
            _("Signs in to the console, beside a second factor. So it opens no mail program: use an app password."),
        )
    if credential.expires_at:
        return standing.Standing(
            "good", _("works"), format_html(_("Works; it expires {}."), moment(credential.expires_at))
        )
    return standing.Standing("good", _("works"), _("Works."))
