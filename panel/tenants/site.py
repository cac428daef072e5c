"""The provider's admin as a whole: what surrounds each of its pages.

Unfold asks the settings for everything around a page on each of them, and renders the side bar anew.
Neither changes while the panel runs, but for the entry of the side bar that is lit.
"""

from functools import cached_property
from typing import Any

from django.apps import apps
from django.contrib.admin.apps import SimpleAdminConfig
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.utils.functional import SimpleLazyObject
from django.utils.module_loading import import_string
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from unfold.settings import get_config
from unfold.sites import UnfoldAdminSite

from panel.client_address import client_ip
from panel.tenants.field_words import name_in_every_language

# What differs from page to page, of what each of them is given. The latest changes are told elsewhere.
OF_THE_PAGE = ("has_permission", "available_apps", "sidebar_navigation", "log_entries")
MOST_KEPT = 100  # side bars: in each language one for each entry, and some for pages at which two are lit


class ProviderSite(UnfoldAdminSite):
    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
        self._settled: dict[str, dict[str, Any]] = {}  # by language
        self._side_bars: dict[tuple[str, tuple[bool, ...]], SafeString] = {}

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        language = get_language() or ""
        if language not in self._settled:
            whole = super().each_context(request)
            self._settled[language] = {name: value for name, value in whole.items() if name not in OF_THE_PAGE}
        may_enter = self.has_permission(request)
        return {
            **self._settled[language],
            "has_permission": may_enter,
            "available_apps": SimpleLazyObject(lambda: self.get_app_list(request)),  # hardly any page asks
            "sidebar_navigation": self.side_bar(request) if may_enter else "",
        }

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """The overview. Unfold's own would first look up for it all that the admin has."""
        context = {**self.each_context(request), "title": self.index_title, "index": True, **(extra_context or {})}
        overview = import_string(get_config(self.settings_name)["DASHBOARD_CALLBACK"])
        request.current_app = self.name
        return TemplateResponse(request, "admin/index.html", overview(request, context))

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        from panel.tenants import visits  # no model can be had while the apps are being loaded

        if request.method == "POST":
            visits.leave(request, visits.SIGNED_OUT, ip=client_ip(request))
        return super().logout(request, extra_context)

    def side_bar(self, request: HttpRequest) -> SafeString:
        """The entries of the side bar, written, with those lit that this page belongs to."""
        lit = tuple(
            bool(active(request)) if active else self._get_is_active(request, link) for link, active in self._entries
        )
        key = get_language() or "", lit
        kept = self._side_bars.get(key)
        if kept is None:
            if len(self._side_bars) >= MOST_KEPT:
                self._side_bars.clear()
            entries = {"sidebar_navigation": self.get_sidebar_list(request)}
            kept = render_to_string("unfold/helpers/app_list.html", entries)
            self._side_bars[key] = kept
        return kept

    @cached_property
    def _entries(self) -> list[tuple[str, Any]]:
        """The address of each, and what says that one is there where its address doesn't."""
        groups = get_config(self.settings_name)["SIDEBAR"]["navigation"]
        return [(str(item["link"]), item.get("active")) for group in groups for item in group["items"]]


class ProviderAdmin(SimpleAdminConfig):
    """Django's admin with this site; "unfold.apps.BasicAppConfig" leaves it to us."""

    default_site = "panel.tenants.site.ProviderSite"

    def ready(self) -> None:
        super().ready()
        name_in_every_language(each for each in apps.get_models() if each.__module__.startswith("panel."))
