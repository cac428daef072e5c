"""The admin's base: scoped to what a person may see, changed only through services."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypedDict
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import PROTECT, Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst, format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.contrib.filters.forms import AutocompleteDropdownForm
from unfold.decorators import display
from unfold.templatetags.unfold import RenderComponentNode
from unfold.widgets import UnfoldAdminTextInputWidget

from panel.rules.status import Status
from panel.tenants import buttons, form_fields, history
from panel.tenants.changes import ServiceError
from panel.tenants.models import User
from panel.tenants.pages import AFTER, BEFORE, CappedPaginator, QuickList
from panel.tenants.rows import box
from panel.tenants.standing import status_words

MOST_KEEPING = 10  # rows that keep another from being deleted, named of each kind
PAGE = 25  # rows: what a page of them costs is mostly their writing, a millisecond each
# No list is narrowed down by these, not by an address that somebody wrote either: letter by letter that reads them.
UNSEARCHABLE = {"password", "secret", "notes"}
EXPRESSIONS = {"regex", "iregex"}  # one can take for ever, and a wrong one is an error of ours

RenderComponentNode.render = buttons.component


class By(TypedDict):
    actor: User
    ip: str | None


def by(request: HttpRequest) -> By:
    """Who changes something and from where, as every service takes it for the audit log."""
    if not isinstance(request.user, User):
        raise PermissionDenied
    return {"actor": request.user, "ip": request.META.get("REMOTE_ADDR") or None}


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=500,
        label=gettext_lazy("Reason"),
        help_text=gettext_lazy("Shown wherever the state shows, and in the audit log."),
        widget=UnfoldAdminTextInputWidget,
    )


class SizeField(form_fields.SizeField):
    """A number of bytes, written as "5 GB". Empty: None."""

    def __init__(self, *, label: Any = None, help_text: Any = None) -> None:
        words = format_lazy("{} {}", help_text or gettext_lazy("Such as 5 GB."), gettext_lazy("Empty: unlimited."))
        super().__init__(
            label=label or gettext_lazy("Storage"), help_text=words, widget=UnfoldAdminTextInputWidget
        )


class ConfirmForm(forms.Form):
    """Nothing to fill in: the page's sentence and a button."""


def is_key(value: object) -> bool:
    """Whether what an address names can be the number of a row."""
    text = str(value)
    return text.isascii() and text.isdigit() and len(text) < 19


class ScopedDropdownForm(AutocompleteDropdownForm):
    """Names what is chosen only when the person may see it: the id comes from the address."""

    def __init__(self, request: HttpRequest, name: str, *args: Any, **kwargs: Any) -> None:
        if not is_key((kwargs.get("data") or {}).get(name)):
            kwargs["data"] = {}
        super().__init__(request, name, *args, **kwargs)
        self.fields[name].queryset = _scoped(self.fields[name].queryset.model, request)


class ScopedFilter(AutocompleteSelectFilter):
    """unfold's filter by a related row, among those that the person may see."""

    form_class = ScopedDropdownForm


class ScopedAdmin(ModelAdmin):
    """An admin in which a person sees and names only what `for_user` gives them.

    Subclasses declare, and say by which service a row is made (`create`), changed
    (`change`) and removed (`remove`). A service's refusal stands beside its field.
    """

    list_per_page = PAGE
    list_max_show_all = PAGE
    paginator = CappedPaginator
    show_full_result_count = False
    list_filter_submit = True
    compressed_fields = True
    warn_unsaved_form = True
    list_fullwidth = False
    change_form_outer_before_template = "admin/posthouse/before_form.html"
    change_form_outer_after_template = "admin/posthouse/after_form.html"
    # What is told of an object, above and below its form; both show what `told` gives.
    above_template: ClassVar[str] = ""
    below_template: ClassVar[str] = ""
    page_select_related: ClassVar[tuple[str, ...]] = ()  # beside an object, on its pages
    # Numbers in the list, of what belongs to a row: {"domains_count": "domains"} is set on each.
    list_counts: ClassVar[dict[str, str]] = {}
    # What the empty list says: what such a thing is for, and what comes first.
    empty_words: ClassVar[Any] = ""
    creatable: ClassVar[bool] = True
    changeable: ClassVar[bool] = True
    removable: ClassVar[bool] = False

    # --- the services: what isn't given nobody may -----------------------------------------

    def create(self, request: HttpRequest, data: dict[str, Any]) -> Model:
        raise PermissionDenied

    def change(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> None:
        raise PermissionDenied

    def remove(self, request: HttpRequest, obj: Any) -> None:
        raise PermissionDenied

    # --- an object's page --------------------------------------------------------------

    def told(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """What the templates above and below the form show of the object."""
        return {}

    def add_url(self, request: HttpRequest, model: type[Model], **filled: Any) -> str:
        """Where such a thing is made, with these fields filled in; empty for who may not."""
        site_admin = self.admin_site.get_model_admin(model)
        if not site_admin.has_add_permission(request):
            return ""
        return f"{reverse(f'admin:{model._meta.app_label}_{model._meta.model_name}_add')}?{urlencode(filled)}"

    def audited(self, obj: Any) -> Model | None:
        """What the audit log calls by its name when this object changes. None: it never does, it is a trace."""
        return obj if self.creatable or self.changeable else None

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], add: bool = False, change: bool = False,
        form_url: str = "", obj: Any = None,
    ) -> HttpResponse:
        if obj is not None:
            # After a refusal the form's object carries what was typed: told is what is stored.
            stored = obj if request.method == "GET" else self.get_queryset(request).filter(pk=obj.pk).first() or obj
            context["told"] = self.told(request, stored)
            context["is_audited"] = (subject := self.audited(stored)) is not None
            if subject is not None:
                context["changes"] = history.latest(subject, by(request)["actor"])
        return super().render_change_form(request, context, add, change, form_url, obj)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The object; read once, however often a page that only shows it asks."""
        if request.method != "GET":
            return super().get_object(request, object_id, from_field)
        shown = request.__dict__.setdefault("shown_objects", {})
        key = (self.model, str(object_id), from_field)
        if key not in shown:
            shown[key] = super().get_object(request, object_id, from_field)
        return shown[key]
    # --- the list ----------------------------------------------------------------------

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[QuickList]:
        return QuickList

    def read_beside(self, rows: Sequence[Any]) -> None:
        """Set on the rows of a list's page what is asked for all of them at once, not of those before it."""

    def get_paginator(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        paginator = super().get_paginator(request, *args, **kwargs)
        if isinstance(paginator, CappedPaginator):
            paginator.from_row(request.GET.get(AFTER), request.GET.get(BEFORE))
        return paginator

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        # PostgreSQL takes no NUL. The list's own box refuses it; what completes a field doesn't.
        return super().get_search_results(request, queryset, search_term.replace("\0", " "))

    @display(description="")
    def action_checkbox(self, obj: Model) -> SafeString:
        return box(obj.pk)

    # --- scope -------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        match = request.resolver_match
        if self.page_select_related and match is not None and "object_id" in match.kwargs:
            rows = rows.select_related(*self.page_select_related)
        if isinstance(self.list_select_related, list | tuple):
            # In its list, on its page and where it completes another's field alike.
            rows = rows.select_related(*self.list_select_related)
        return rows.for_user(request.user) if hasattr(rows, "for_user") else rows

    def get_list_filter(self, request: HttpRequest) -> Any:
        return [
            (each[0], ScopedFilter) if isinstance(each, tuple) and each[1] is AutocompleteSelectFilter else each
            for each in super().get_list_filter(request)
        ]

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        words = lookup.split("__")
        # What points at the row Django lets through, up to its key: a session's key is its secret.
        if (UNSEARCHABLE | EXPRESSIONS) & set(words) or self._points_here(words[0]):
            return False
        return super().lookup_allowed(lookup, value, request)

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        return not self._points_here(to_field) and super().to_field_allowed(request, to_field)

    def _points_here(self, name: str) -> bool:
        return any(relation.name == name for relation in self.opts.related_objects)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = _scoped(db_field.remote_field.model, request)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and isinstance(field.widget, RelatedFieldWidgetWrapper):
            # Each thing is made on its own page: no buttons that open windows.
            field.widget.can_add_related = field.widget.can_change_related = False
            field.widget.can_view_related = field.widget.can_delete_related = False
        return field

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = _scoped(db_field.remote_field.model, request)
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.creatable and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.changeable and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.removable and super().has_delete_permission(request, obj)

    def has_act_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        """Whether this person may do what the buttons do: all but the read-only role."""
        opts = self.opts
        return bool(request.user.has_perm(f"{opts.app_label}.change_{opts.model_name}"))

    def offered(self, obj: Any) -> set[str]:
        """The names of the buttons that make sense for this object now; all unless a subclass says."""
        return set(self._extract_action_names(self.actions_detail))

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        obj = self.get_object(request, unquote(str(object_id)))
        prefix = f"{self.opts.app_label}_{self.opts.model_name}_"
        offered = {prefix + name for name in self.offered(obj)} if obj is not None else set()
        return [
            action for action in super().get_actions_detail(request, object_id) if action.action_name in offered
        ]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """What the address of the form fills in; what can be no key leaves such a field empty."""
        related = {each.name for each in self.opts.fields if each.is_relation}
        return {
            name: value for name, value in super().get_changeform_initial_data(request).items()
            if name not in related or is_key(value)
        }

    # --- saving ------------------------------------------------------------------------

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        base = super().get_form(request, obj, change=change, **kwargs)

        class ServiceForm(base):  # type: ignore[misc, valid-type]
            def clean(self) -> Any:
                cleaned = super().clean()
                error = getattr(request, "service_error", None)
                if error is not None:
                    self.add_error(error.field if error.field in self.fields else None, str(error))
                return cleaned

            def validate_unique(self) -> None:
                """Left to the service, which says what stands in the way."""

            def _post_clean(self) -> None:
                # Constraints are left to the service and the database; full_clean would ask for them by itself.
                self.instance.validate_constraints = lambda exclude=None: None
                super()._post_clean()
                del self.instance.validate_constraints

        return ServiceForm

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except ServiceError as error:
            # Shown again, with what was typed and the service's sentence beside its field.
            request.service_error = error  # type: ignore[attr-defined]
            return super().changeform_view(request, object_id, form_url, extra_context)

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        return form.instance

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        data = dict(form.cleaned_data)
        if change:
            self.change(request, self.get_queryset(request).get(pk=obj.pk), data)
        else:
            made = self.create(request, data)
            obj.__dict__.update(made.__dict__)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Nothing: what belongs to a row is saved by its service."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, Any, list[str]]:
        """What goes with these. What keeps them, of which there can be 100,000, is named by its first few alone."""
        keeping: list[str] = []
        for relation in self.opts.related_objects:
            if relation.on_delete is not PROTECT:
                continue
            model, name = relation.related_model, relation.field.name
            rows = model._base_manager.filter(**{f"{name}__in": list(objs)}).select_related(name).order_by("pk")
            found = list(rows[: MOST_KEEPING + 1])
            keeping += [self._linked(row) for row in found[:MOST_KEEPING]]
            keeping += [_("… and more")] * (len(found) > MOST_KEEPING)
        return ([], {}, set(), keeping) if keeping else super().get_deleted_objects(objs, request)

    def _linked(self, row: Model) -> SafeString:
        opts = row._meta
        if not self.admin_site.is_registered(type(row)):
            return format_html("{}: {}", capfirst(opts.verbose_name), row)
        url = reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=(row.pk,))
        return format_html('{}: <a href="{}">{}</a>', capfirst(opts.verbose_name), url, row)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.remove(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Remove each; all or none, so that the list afterwards is no riddle."""
        with transaction.atomic():
            for obj in queryset:
                self.remove(request, obj)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        try:
            return super().changelist_view(request, extra_context)
        except ServiceError as error:
            messages.error(request, _("Nothing was done: {error}").format(error=error))
            return HttpResponseRedirect(request.get_full_path())

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except ServiceError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(self.url_of(object_id))

    # --- history: the audit log, not Django's -------------------------------------------

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:
        """The service wrote an AuditEntry."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None:
        """The service wrote an AuditEntry."""

    def log_deletions(self, request: HttpRequest, queryset: Any) -> None:
        """The service wrote an AuditEntry each."""

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        obj = self.object_or_404(request, object_id)
        entries = history.entries_of(self.audited(obj) or obj, by(request)["actor"])
        context = {
            **self.admin_site.each_context(request),
            "title": _("History of {obj}").format(obj=obj),
            "entries": (page := Paginator(entries, PAGE).get_page(request.GET.get("p"))),
            "rows": [history.written(each) for each in page],
            "opts": self.opts,
            "object": obj,
        }
        return TemplateResponse(request, "admin/posthouse/history.html", context)

    # --- acts on one object --------------------------------------------------------------

    def object_or_404(self, request: HttpRequest, object_id: str) -> Any:
        obj = self.get_object(request, unquote(str(object_id)))
        if obj is None:
            raise Http404
        return obj

    def url_of(self, object_id: object) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=(object_id,))

    def confirm(
        self,
        request: HttpRequest,
        object_id: str,
        *,
        title: str,
        sentence: str,
        button: str,
        act: Callable[[Any, dict[str, Any]], str],
        form_class: type[forms.Form] = ConfirmForm,
        harmful: bool = False,
        reads: bool = False,
        next_page: Callable[[Any], str] | None = None,
    ) -> HttpResponse:
        """A page that says what will happen and asks once; `act` does it and returns the report.

        What only `reads` is for the read-only role too. `next_page`: what follows, if not the object's page.
        """
        if not (self.has_view_permission(request) if reads else self.has_act_permission(request)):
            raise PermissionDenied
        obj = self.object_or_404(request, object_id)
        form = form_class(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            try:
                report = act(obj, form.cleaned_data)
                if report:
                    messages.success(request, report)
                return HttpResponseRedirect(next_page(obj) if next_page else self.url_of(object_id))
            except ServiceError as error:
                form.add_error(error.field if error.field in form.fields else None, str(error))
        context = {
            **self.admin_site.each_context(request),
            "title": title.format(obj),
            "sentence": sentence.format(obj),
            "button": button,
            "harmful": harmful,
            "form": form,
            "opts": self.opts,
            "object": obj,
            "back": self.url_of(object_id),
        }
        return TemplateResponse(request, "admin/posthouse/confirm.html", context)

    def show_secret(
        self, request: HttpRequest, object_id: object, *, title: str, sentence: str, secret: str
    ) -> HttpResponse:
        """A secret, shown this once."""
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "sentence": sentence,
            "secret": secret,
            "opts": self.opts,
            "back": self.url_of(object_id),
        }
        # The admin's pages are never cached (never_cache), so no proxy keeps it either.
        return TemplateResponse(request, "admin/posthouse/secret.html", context)


def _scoped(model: Any, request: HttpRequest) -> Any:
    rows = model._default_manager.all()
    return rows.for_user(request.user) if hasattr(rows, "for_user") else rows


def state_of(row: Any) -> SafeString:
    """The badge of what can be suspended and closed; of what is closed it tells until when that can be undone."""
    reason = row.status_reason
    if row.grace_ends_at:
        until = _("can be restored until {end:%Y-%m-%d %H:%M} UTC").format(end=row.grace_ends_at)
        reason = f"{reason} · {until}" if reason else until
    return state_badge(row.status, reason)


def state_badge(status: int, reason: str = "") -> SafeString:
    """A status as a word with a colour and a sign, its reason on hover."""
    value = Status(status)
    look = {Status.ACTIVE: "good", Status.NO_SENDING: "warn", Status.SUSPENDED: "bad", Status.CLOSED: "off"}[value]
    return format_html('<span class="ph-state is-{}" title="{}">{}</span>', look, reason, status_words(value))


def badge(look: str, words: str) -> SafeString:
    """look: good, warn, bad or off; `words` in the reader's language."""
    return format_html('<span class="ph-state is-{}">{}</span>', look, words)


def list_url(view: str, parameter: str, value: object) -> str:
    """A list, narrowed by one filter: list_url("domains_domain", "tenant__id__exact", 7)."""
    return f"{reverse(f'admin:{view}_changelist')}?{urlencode({parameter: value})}"


def linked(url: str, text: object, *, is_mono: bool = False) -> SafeString:
    """A way to another page, in the text of this one."""
    look = "ph-mono " if is_mono else ""
    return format_html('<a class="{}text-primary-600 dark:text-primary-500" href="{}">{}</a>', look, url, text)


def mono(text: object) -> SafeString:
    """An address, an id or a name on the wire."""
    return format_html('<span class="ph-mono">{}</span>', text)
