"""How a person's mail programs are set up: the servers, and Apple's profile."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from panel.autoconfig import documents
from panel.autoconfig.servers import Server, servers
from panel.autoconfig.views import PROFILE
from panel.console.access import mailbox_page
from panel.console.frame import page
from panel.console.places import MailboxPlace
from panel.mailboxes.services import SCOPES
from panel.rules.addresses import Address

_SCOPE = {"smtp": "submission"}


@mailbox_page()
def setup(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """The settings for every mail program."""
    return page(
        request, place, "console/me_settings.html", _("Settings for mail programs"),
        crumbs=[(_("Your mailbox"), reverse("console:me"))], **offered(),
    )


@mailbox_page()
def apple(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """The profile of this mailbox; without a password, which the device asks for."""
    address = place.mailbox.address
    profile = documents.apple(Address(address.local_part, address.domain.name), servers(settings.ENVIRONMENT))
    if profile is None:
        raise Http404
    answer = HttpResponse(profile, content_type=PROFILE)
    answer.headers["Content-Disposition"] = 'attachment; filename="mail.mobileconfig"'
    return answer


def offered(scopes: Sequence[str] = SCOPES) -> dict[str, Any]:
    """What mail programs are told here: the servers to read and to send by, the preferred first.

    `scopes`: those alone that a password opens.
    """
    found = [each for each in servers(settings.ENVIRONMENT) if _SCOPE.get(each.protocol, each.protocol) in scopes]
    read, send = ([_server(each) for each in found if (each.protocol == "smtp") is sends] for sends in (False, True))
    kinds = {each.protocol for each in found}
    return {"read": read, "send": send, "has_apple": kinds >= {"imap", "smtp"}}


def _server(server: Server) -> dict[str, Any]:
    return {
        "name": server.protocol.upper(), "host": server.host, "port": server.port,
        "security": "STARTTLS" if server.starttls else "SSL/TLS",
    }
