"""Writes the rows of an admin's list, in unfold's place and in its look.

Unfold asks and renders anew for each cell what is the same in every row (the column's heading and
classes, the way to a row's page, a template for what the row can do): most of what a page of a list
took. Here each column is made ready once, and a row only fills in what it shows.

Nothing here knows of what no list of ours has: fields that are edited in the list, sections, actions
of a row, an order that is dragged, and unfold's labels, headers and dropdowns.
"""

import datetime
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote as url_quote

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import lookup_field, quote
from django.core.exceptions import FieldDoesNotExist, ObjectDoesNotExist
from django.db import models
from django.urls import reverse
from django.utils.html import conditional_escape, escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language, gettext
from unfold.admin import checkbox
from unfold.templatetags import unfold_list
from unfold.utils import display_for_field, display_for_value

Shown = tuple[str, bool]  # what a cell shows, and whether it stays on one line

_TBODY = (
    '<tbody class="block relative lg:table-row-group {}" x-data="{{rowOpen: false}}">'
    '<tr class="data-row block border border-base-200 mb-3 relative rounded-default'
    ' lg:table-row lg:border-none lg:mb-0 lg:rounded-none dark:border-base-800">'
)
_EVEN, _ODD = _TBODY.format(""), _TBODY.format("bg-base-50 dark:bg-white/[.02]")
_END = "</tr></tbody>"
_ANY_KEY = "0"

# The box of each row, of which unfold renders a template: what stands before and behind the key, by language.
_boxes: dict[str, tuple[str, str]] = {}


def box(key: object) -> SafeString:
    """The box with which a row is chosen."""
    language = get_language() or ""
    if language not in _boxes:
        before, _key, after = checkbox.render(ACTION_CHECKBOX_NAME, "\x00").partition("\x00")
        _boxes[language] = before, after
    before, after = _boxes[language]
    return mark_safe(f"{before}{escape(key)}{after}")  # noqa: S308 - ours, and escaped


def result_list(context: Any, changes: Any) -> dict[str, Any]:
    """What admin/change_list_results.html shows of a list."""
    headers = list(unfold_list.result_headers(changes))
    return {
        "cl": changes,
        "result_headers": headers,
        "num_sorted_fields": sum(bool(header["sortable"] and header["sorted"]) for header in headers),
        "rows": written(changes, [header["text"] for header in headers]),
        "has_add_permission": changes.model_admin.has_add_permission(context["request"]),
    }


unfold_list.result_list = result_list  # which the tag asks for by this name


def written(changes: Any, headings: Sequence[object]) -> SafeString:
    """All rows of a list's page."""
    columns = list(_columns(changes, headings))
    parts: list[str] = []
    for number, row in enumerate(changes.result_list):
        parts.append(_ODD if number % 2 else _EVEN)
        parts.extend(column(row) for column in columns)
        parts.append(_END)
    return mark_safe("".join(parts))  # noqa: S308 - each part is ours or escaped


def _columns(changes: Any, headings: Sequence[object]) -> Iterable[Callable[[Any], str]]:
    linked = False
    for number, name in enumerate(changes.list_display):
        leads = _leads(changes, name, is_first=not linked)
        tag = "th" if leads and not linked else "td"
        linked = linked or leads
        label = headings[number] if leads or number else gettext("Select record")
        yield _column(changes, name, tag, label, _link(changes) if leads else None)


def _leads(changes: Any, name: str, *, is_first: bool) -> bool:
    """Whether this column's cells lead to the row's page."""
    links = changes.list_display_links
    return links is not None and (name in links or (is_first and not links))


def _column(
    changes: Any, name: str, tag: str, label: object, link: Callable[[Any], str] | None
) -> Callable[[Any], str]:
    """What writes a row's cell of this column."""
    if name == "action_checkbox":
        classes = unfold_list.CHECKBOX_CLASSES
    else:
        classes = [f"field-{name}", *unfold_list.ROW_CLASSES]
    plain, nowrap = (
        format_html('<{} class="{}" data-label="{}">', tag, " ".join([*classes, *more]), label)
        for more in ((), ("nowrap",))
    )
    end = f"</a></{tag}>" if link else f"</{tag}>"
    look_up = _look_up(changes, name)

    def cell(row: Any) -> str:
        value, stays = look_up(row)
        return f"{nowrap if stays else plain}{link(row) if link else ''}{conditional_escape(value)}{end}"

    return cell


def _look_up(changes: Any, name: str) -> Callable[[Any], Shown]:
    """What finds that which a row shows in this column."""
    admin = changes.model_admin
    empty = admin.get_empty_value_display()
    try:
        field = changes.lookup_opts.get_field(name)
    except FieldDoesNotExist:
        return _told(admin, name, empty)
    if isinstance(field.remote_field, models.ManyToOneRel):

        def related(row: Any) -> Shown:
            try:
                value = getattr(row, field.name)
            except ObjectDoesNotExist:
                return empty, False
            return (empty if value is None else escape(value)), isinstance(field, models.ForeignKey)

        return related
    stays = isinstance(field, models.DateField | models.TimeField)
    return lambda row: (display_for_field(getattr(row, field.name), field, empty), stays)


def _told(admin: Any, name: str, empty: str) -> Callable[[Any], Shown]:
    """What a method of the admin's, or something else of the row's that is no column, tells."""
    method = getattr(admin, name, None) if name != "__str__" else None

    def told(row: Any) -> Shown:
        if method is None:
            _, attribute, value = lookup_field(name, row, admin)
        else:
            attribute, value = method, method(row)
        if isinstance(value, str):
            return value, False
        nothing = getattr(attribute, "empty_value_display", empty)
        shown = display_for_value(value, nothing, getattr(attribute, "boolean", False))
        return shown, isinstance(value, datetime.date | datetime.time)

    def told_or_empty(row: Any) -> Shown:
        try:
            return told(row)
        except ObjectDoesNotExist:
            return empty, False

    return told_or_empty


def _link(changes: Any) -> Callable[[Any], str]:
    """What opens the link from a row to its page, which leads back to the list as it is narrowed now."""
    opts = changes.opts
    path = reverse(
        f"admin:{opts.app_label}_{opts.model_name}_change", args=(_ANY_KEY,),
        current_app=changes.model_admin.admin_site.name,
    )
    kept = {"preserved_filters": changes.preserved_filters, "opts": opts}
    query = add_preserved_filters(kept, path).removeprefix(path)
    before, _, after = path.rpartition(_ANY_KEY)
    before, after = escape(before), escape(after + query)
    classes = " ".join(unfold_list.LINK_CLASSES)
    key = changes.pk_attname
    chosen = str(changes.to_field) if changes.to_field else changes.lookup_opts.pk.attname

    def link(row: Any) -> str:
        opener = format_html(' data-popup-opener="{}"', row.serializable_value(chosen)) if changes.is_popup else ""
        return f'<a href="{before}{url_quote(str(quote(getattr(row, key))))}{after}" class="{classes}" {opener}>'

    return link
