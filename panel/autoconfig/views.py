"""The addresses that mail clients and servers ask, by middleware.Autoconfig alone; `host` is what it let in."""

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from panel.autoconfig import documents, question
from panel.autoconfig.servers import POLICY_HOST, read_address, read_domain, servers

XML = "text/xml; charset=utf-8"  # as both clients document it
PROFILE = "application/x-apple-aspen-config"
NOT_HERE = 500  # MS-OXDSCLI §2.2.4.1.1.3.1: no settings for this address
NOT_UNDERSTOOD = 600
NO_SUCH_SCHEMA = 601


@require_safe
def thunderbird(request: HttpRequest, host: str) -> HttpResponse:
    """The domain of `emailaddress`, or without one that of the host. 404: it isn't answered."""
    asked = request.GET.get("emailaddress", "")
    if asked:
        address = read_address(asked)
        domain = address.domain if address else None
    else:
        domain = read_domain(host)
    if domain is None:
        raise Http404
    return HttpResponse(documents.thunderbird(domain, servers(settings.ENVIRONMENT)), content_type=XML)


@require_POST
def outlook(request: HttpRequest, host: str) -> HttpResponse:
    """Settings by IMAP, POP3 and SMTP; an error in Autodiscover's own form, which is a 200, for all else."""
    try:
        asked = question.read(request.read(question.MOST_BYTES + 1))
    except question.BadQuestion:
        return _outlook_error(NOT_UNDERSTOOD, "Invalid Request")
    if asked.schema != documents.OUTLOOK:
        return _outlook_error(NO_SUCH_SCHEMA, "Provider is not available")
    address = read_address(asked.address)
    if address is None:
        return _outlook_error(NOT_HERE, "The email address cannot be found.")
    return HttpResponse(documents.outlook(address, servers(settings.ENVIRONMENT)), content_type=XML)


def _outlook_error(code: int, text: str) -> HttpResponse:
    return HttpResponse(documents.outlook_error(code, text, time=f"{timezone.now():%H:%M:%S}"), content_type=XML)


@require_safe
def outlook_json(request: HttpRequest, host: str) -> HttpResponse:
    """Autodiscover version 2 knows Exchange's protocols only: refused in its own form, so that version 1 is tried."""
    text = "Only the XML form of Autodiscover is answered here."
    return JsonResponse({"ErrorCode": "InvalidProtocol", "ErrorMessage": text}, status=400)


@require_safe
def apple(request: HttpRequest, host: str) -> HttpResponse:
    """The profile of `email`. 404: its domain isn't answered."""
    address = read_address(request.GET.get("email", ""))
    profile = documents.apple(address, servers(settings.ENVIRONMENT)) if address else None
    if profile is None:
        raise Http404
    response = HttpResponse(profile, content_type=PROFILE)
    response.headers["Content-Disposition"] = 'attachment; filename="mail.mobileconfig"'
    return response


@require_safe
def mta_sts(request: HttpRequest, host: str) -> HttpResponse:
    """The policy of the domain whose policy host is asked, RFC 8461 §3.2. 404: it has none.

    `domain` in place of the host: a proxy that gets certificates as they are needed asks so whether to get one.
    """
    name = request.GET.get("domain", host)
    environment = settings.ENVIRONMENT
    if not environment.mta_sts or not name.lower().startswith(POLICY_HOST) or read_domain(name) is None:
        raise Http404
    return HttpResponse(documents.mta_sts(environment.mx_names), content_type="text/plain")
