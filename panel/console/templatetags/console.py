"""What the console's templates write again and again."""

import re
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any

from django import template
from django.forms import BoundField
from django.forms.widgets import CheckboxInput, RadioSelect, Select
from django.http import QueryDict
from django.templatetags.static import static
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from panel.console import domain_words
from panel.rules.records import Record
from panel.rules.verdicts import Sentence, Verdict
from panel.tenants import shown
from panel.tenants.credential_words import credential_words
from panel.tenants.history import kept_words

register = template.Library()

_DRAWINGS = {
    "good": "circle-check-filled", "warn": "alert-triangle-filled", "bad": "circle-x-filled", "now": "clock",
}
_BREAKS = ".:=@/"  # after these a long address, record or name may be broken
_AFTER_BREAK = re.compile(f"(?<=[{re.escape(_BREAKS)}])")


@register.simple_tag
def icon(name: str, classes: str = "ico") -> SafeString:
    """A drawing of icons.svg; readers are told nothing of it, so a word stands beside."""
    return format_html('<svg class="{}" aria-hidden="true"><use href="{}#{}"/></svg>', classes, _drawings(), name)


@cache
def _drawings() -> str:
    return static("console/icons.svg")


@register.simple_tag
def mark() -> SafeString:
    """The post horn, in the colour of the text."""
    return format_html(
        '<svg viewBox="0 0 24 24" aria-hidden="true"><use href="{}#mark"/></svg>', static("posthouse/logo.svg")
    )


@register.filter
def moment(at: datetime | None) -> str:
    """"4 min ago", with the exact time on hover; nothing for None."""
    return shown.moment(at) if at else ""


@register.filter
def said(sentence: Sentence) -> str:
    """A verdict's sentence in the reader's language."""
    return domain_words.said(sentence)


@register.filter
def verdict(value: Verdict) -> str:
    """"different", in the reader's language."""
    return domain_words.verdict(value)


@register.filter
def record_label(record: Record) -> str:
    return domain_words.record_label(record)


@register.filter
def credential(kept: str) -> str:
    """What a message or a login keeps of what logged in, in the reader's language."""
    return credential_words(kept)


@register.filter
def kept(reason: str) -> str:
    """A reason, in the reader's language if it is none that a person wrote."""
    return kept_words(reason)


@register.filter
def size(number: int | None) -> str:
    return shown.about(number) if number is not None else ""


@register.filter
def number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


@register.filter
def breakable(text: object) -> SafeString:
    """The text with a chance of a line break after each of _BREAKS."""
    parts = _AFTER_BREAK.split(str(text))
    escaped = "<wbr>".join(escape(each) for each in parts)
    return mark_safe(escaped.removesuffix("<wbr>"))  # noqa: S308 - each part was escaped


@register.inclusion_tag("console/parts/copied.html")
def copied(text: object, label: str) -> dict[str, Any]:
    """A value in the monospaced face with a button that copies it; `label` says what it is."""
    return {"text": str(text), "label": label}


# These two stand in every row of a list: as templates of their own they were a third of such a page's time.


@register.simple_tag
def gauge(bar: Any, title: str = "", label: str = "") -> SafeString:
    """A number against what is allowed (tenants/gauge), as a bar with its numbers."""
    head = format_html('<span class="num">{}</span>', title) if title else ""
    words = format_html('<span class="num{}">{}</span>', " dim" if title else "", bar.words)
    meter = format_html(
        '<meter value="{}" max="{}" low="{}" high="{}" optimum="0" aria-label="{}"></meter>',
        str(bar.value), str(bar.allowed), f"{bar.low:.6g}", f"{bar.high:.6g}", label or title,
    ) if bar.allowed else ""
    return format_html('<div class="gauge"><span>{}{}</span>{}</div>', head, words, meter)


@register.simple_tag
def state(look: str, words: object, drawing: str = "", pill: bool = False) -> SafeString:
    """A state: `look` is good, warn, bad, now, or else plain; always an icon and a word."""
    known = look if look in _DRAWINGS else ""
    classes = f"state{f' is-{known}' if known else ''}{' pill' if pill else ''}"
    drawn = icon(drawing or _DRAWINGS.get(known, "clock"), "")
    return format_html('<span class="{}">{}{}</span>', classes, drawn, words)


@register.inclusion_tag("console/parts/field.html")
def field(bound: BoundField, optional: bool = False, mono: bool = False) -> dict[str, Any]:
    """A form's field: label, control, what is wrong with it, hint."""
    widget = bound.field.widget
    return {
        "bound": bound, "optional": optional, "is_check": isinstance(widget, CheckboxInput),
        "is_choice": isinstance(widget, RadioSelect), "mono": mono,
    }


@register.filter
def control(bound: BoundField, more: str = "") -> SafeString:
    """The field's control alone, in our look and tied to its error and hint; `more` are further classes."""
    widget = bound.field.widget
    base = (
        "form-check-input" if isinstance(widget, CheckboxInput | RadioSelect)
        else "form-select" if isinstance(widget, Select) else "form-control"
    )
    attributes: dict[str, Any] = {"class": f"{base} {more}".strip()}
    described = [
        *([f"{bound.auto_id}-fault"] if bound.errors else []), *([f"{bound.auto_id}-hint"] if bound.help_text else [])
    ]
    # Django would name a hint by another id.
    attributes["aria-describedby"] = " ".join(described) or False
    if bound.errors:
        attributes["aria-invalid"] = "true"
    return bound.as_widget(attrs=attributes)


@register.filter
def faulty(form: Any) -> Iterable[BoundField]:
    """The form's fields that have errors, for the summary above it."""
    return [bound for bound in form if bound.errors]


@register.simple_tag(takes_context=True)
def with_query(context: Any, **values: object) -> str:
    """The page's query with these values in place; what is empty is left out. "" or "?…"."""
    query: QueryDict = context["request"].GET.copy()
    for name, value in values.items():
        query.pop(name, None)
        if value not in (None, ""):
            query[name] = str(value)
    return f"?{query.urlencode()}" if query else "?"
