"""The provider's pages, found by asking the admin itself: what is registered later is measured as well.

Lists (first page, a deep one, each filter, each search, each order), every page about one object,
completions, and every page of the admin that takes no argument.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.views.main import ORDER_VAR, PAGE_VAR, SEARCH_VAR
from django.db import models
from django.http import HttpRequest
from django.test import RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from panel.sending.models import Message
from panel.tenants.models import User
from panel.tenants.pages import AFTER

DEEP = 5000  # the page of a list that is asked for; the last one where there are fewer
# Not pages: what signs in and out, and what belongs to no page of the provider's.
LEFT_OUT = ("login", "logout", "jsi18n", "password_change", "autocomplete", "account/", "r/", "(?P<url>")


@dataclass(frozen=True, slots=True)
class Page:
    """Its name (the same for another database), and the addresses that are asked in turn."""

    name: str
    urls: tuple[str, ...]


def pages(owner: User, *, thorough: bool = True) -> list[Page]:
    """All of them. Not `thorough`: one choice of each filter, one text to search for, one object each."""
    assert get_resolver().url_patterns, "the admin's pages are found when the panel's addresses are"
    request = RequestFactory().get("/")
    request.user = owner
    found: list[Page] = []
    for model, of in sorted(admin.site._registry.items(), key=lambda item: item[0]._meta.label_lower):
        rows = of.get_queryset(request)
        samples = _samples(model, rows)
        if not samples:
            continue
        found += _lists(model, of, request, rows, samples, thorough)
        found += _objects(model, of, request, samples if thorough else samples[:1])
        found += _completions(model, of, request)
    found += _single_pages(request)
    return found


def _named(model: type[models.Model]) -> str:
    return str(model._meta.model_name)


def _list_url(model: type[models.Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{_named(model)}_changelist")


def _samples(model: type[models.Model], rows: Any) -> list[Any]:
    """The oldest, one of the middle, and the newest: of tenants, the oldest is the largest."""
    by_key = rows.order_by("pk")
    oldest, newest = by_key.first(), by_key.last()
    if oldest is None:
        return []
    middle = by_key.filter(pk__gte=(oldest.pk + newest.pk) // 2).first()
    return list({each.pk: each for each in (oldest, middle, newest)}.values())


def _lists(
    model: type[models.Model], of: Any, request: HttpRequest, rows: Any, samples: list[Any], thorough: bool
) -> Iterator[Page]:
    base, name = _list_url(model), _named(model)

    def asked(*words: object, **parameters: object) -> Page:
        return Page(" ".join([name, "list", *map(str, words)]), (f"{base}?{urlencode(parameters)}",))

    yield Page(f"{name} list", (base,))
    last = -(-model._default_manager.filter(pk__in=rows.order_by().values("pk")).count() // of.list_per_page)
    if last > 1:
        yield asked("deep page", **{PAGE_VAR: min(DEEP, last)})
        # As one comes there: from the page before.
        deep = min(DEEP, last)
        changelist = of.get_changelist_instance(request)
        if changelist.paginator.is_capped:
            row = changelist.queryset.values_list("pk", flat=True)[(deep - 1) * of.list_per_page - 1]
            yield asked("deep page by the link to the next", **{PAGE_VAR: deep, AFTER: row})
    if last > 2 and thorough:
        yield asked("page in the middle", **{PAGE_VAR: min(DEEP, last // 2)})
    for spec in of.get_changelist_instance(request).filter_specs:
        choices = list(_choices(spec))
        for parameter, value in choices if thorough else choices[:1]:
            yield asked("where", f"{parameter}={_short(value)}", **{parameter: value})
    for path in of.get_search_fields(request) if thorough else of.get_search_fields(request)[:1]:
        text = _value(samples[len(samples) // 2], path)
        if text:
            yield asked("search", path, **{SEARCH_VAR: text})
    if of.get_search_fields(request):
        yield asked("search without a hit", **{SEARCH_VAR: "nothing-is-called-so"})
    if model is Message or hasattr(model, "message"):
        yield asked("search queue id", **{SEARCH_VAR: (
            samples[-1] if model is Message else samples[-1].message).queue_id})
    if thorough:
        changelist = of.get_changelist_instance(request)
        for at, column in enumerate(changelist.list_display):
            sortable = changelist.sortable_by is None or column in changelist.sortable_by
            if sortable and changelist.get_ordering_field(column):
                yield asked("ordered by", column, **{ORDER_VAR: at})


def _choices(spec: Any) -> Iterator[tuple[str, object]]:
    """What a filter may be set to, as parameter and value."""
    parameter = getattr(spec, "parameter_name", None) or getattr(spec, "lookup_kwarg", None)
    field = getattr(spec, "field", None)
    if parameter is None:
        return
    if field is not None and field.remote_field is not None:
        of_tenant = field.remote_field.model._default_manager.order_by("pk").values_list("pk", flat=True)
        if (largest := of_tenant.first()) is not None:
            yield parameter, largest
    elif field is not None and field.flatchoices:
        yield from ((parameter, value) for value, _ in field.flatchoices)
    elif hasattr(spec, "lookup_choices"):
        yield from ((parameter, choice[0]) for choice in spec.lookup_choices)
    else:
        yield from ((parameter, value) for value in ("1", "0"))


def _short(value: object) -> str:
    return "…" if isinstance(value, int) and value > 99 else str(value)


def _value(row: Any, path: str) -> str:
    """What a row has at the end of a path of lookups; of several, the first."""
    for part in path.lstrip("^=@").split("__"):
        row = getattr(row, part, None)
        if isinstance(row, models.Manager):
            row = row.first()
        if row is None:
            return ""
    return str(row)


def _objects(model: type[models.Model], of: Any, request: HttpRequest, samples: list[Any]) -> Iterator[Page]:
    """Each page that stands for one object: its own, its history, and what its buttons open."""
    name = _named(model)
    for pattern in _patterns(of.get_urls()):
        if pattern.pattern.converters.keys() != {"object_id"} or not pattern.name:
            continue
        about = samples
        if pattern.name.endswith("_delete"):
            about = [each for each in samples if of.has_delete_permission(request, each)]
        what = pattern.name.removeprefix(f"{model._meta.app_label}_{name}_")
        if about:
            yield Page(f"{name} {what}", tuple(reverse(f"admin:{pattern.name}", args=(each.pk,)) for each in about))


def _completions(model: type[models.Model], of: Any, request: HttpRequest) -> Iterator[Page]:
    fields = [model._meta.get_field(name) for name in of.get_autocomplete_fields(request)]
    for spec in of.get_changelist_instance(request).filter_specs:
        field = getattr(spec, "field", None)
        if field is not None and field.remote_field is not None and "Autocomplete" in type(spec).__name__:
            fields.append(field)
    for field in fields:
        sample = field.remote_field.model._default_manager.order_by("pk").first()
        asked = {
            "app_label": field.model._meta.app_label, "model_name": _named(field.model), "field_name": field.name,
        }
        url = reverse("admin:autocomplete")
        for term in ("", str(sample)):
            yield Page(
                f"{_named(field.model)} completes {field.name}{' with a word' if term else ''}",
                (f"{url}?{urlencode({**asked, 'term': term})}",),
            )


def _single_pages(request: HttpRequest) -> Iterator[Page]:
    """What takes no argument: the overview, forms for new things, and pages that stand on their own."""
    lists = {_list_url(model) for model in admin.site._registry}
    refused = {
        f"{_list_url(model)}add/" for model, of in admin.site._registry.items() if not of.has_add_permission(request)
    }
    start = reverse("admin:index")
    for route in _routes(get_resolver().url_patterns, "/"):
        if not route.startswith(start) or route.removeprefix(start).startswith(LEFT_OUT):
            continue
        if route in lists or route in refused:
            continue
        if "search" in route:
            yield Page(f"{route} ", (route,))
            for what, text in _wanted():
                yield Page(f"{route} {what}", (f"{route}?{urlencode({SEARCH_VAR: text})}",))
        else:
            yield Page(route, (route,))


def _wanted() -> Iterator[tuple[str, str]]:
    """What people put into a search box that is for everything."""
    from panel.domains.models import Domain
    from panel.mailboxes.models import Alias, Mailbox

    message = Message.objects.order_by("-pk").first()
    for what, row in (
        ("mailbox", Mailbox.objects.order_by("pk").last()), ("alias", Alias.objects.order_by("pk").last()),
        ("domain", Domain.objects.order_by("pk").last()), ("queue id", message),
    ):
        if row is not None:
            yield what, str(row)
    if message is not None:
        yield "Message-ID", message.message_id
        yield "IP address", str(message.client_ip)
        recipient = message.recipients.first()
        if recipient is not None:
            yield "recipient", recipient.original
    yield "part of a name", "ann"
    yield "nothing", "nothing-is-called-so"


def _patterns(urls: Iterable[Any]) -> Iterator[URLPattern]:
    for each in urls:
        if isinstance(each, URLResolver):
            yield from _patterns(each.url_patterns)
        else:
            yield each


def _routes(urls: Iterable[Any], before: str) -> Iterator[str]:
    """The routes without an argument."""
    for each in urls:
        route = before + str(each.pattern)
        if isinstance(each, URLResolver):
            yield from _routes(each.url_patterns, route)
        elif not each.pattern.converters and "<" not in route and "^" not in route:
            yield route


def only(found: Iterable[Page], words: str) -> list[Page]:
    """Those whose name holds the words."""
    return [page for page in found if words in page.name]


def without_repeats(found: Iterable[Page]) -> list[Page]:
    """Each address once, by the first name that it has."""
    seen: set[tuple[str, ...]] = set()
    return [page for page in found if not (page.urls in seen or seen.add(page.urls))]  # type: ignore[func-returns-value]

