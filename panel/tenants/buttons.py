"""Writes unfold's buttons, as unfold/components/button.html does.

Unfold renders a template with a request of its own for each button, a millisecond apiece; a form has
four of them. What else is a component stays unfold's.
"""

from collections.abc import Mapping
from typing import Any

from django.template import Context
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.templatetags.unfold import RenderComponentNode

_BUTTON = "unfold/components/button.html"
_LOOK = "font-medium inline-flex group items-center gap-1 relative rounded-default justify-center whitespace-nowrap"
_SIZES = {
    "lg": "gap-2 px-5.5 py-3 text-[15px]", "md": "px-5 py-2.5 text-[14px]", "sm": "px-2.5 py-1.5", "xs": "px-2 py-1",
}
_SIZE = "px-3 py-2"
# A variant's classes, and those while it can be clicked.
_VARIANTS = {
    "default": ("border border-base-200 bg-white shadow-xs text-important dark:border-base-700 dark:bg-transparent",
                "hover:bg-base-100/80 dark:hover:bg-base-800/80"),
    "ghost": ("border border-transparent bg-transparent text-important",
              "hover:bg-base-100/80 dark:hover:bg-base-800/80"),
    "secondary": ("bg-base-100 border border-transparent text-important dark:bg-base-800",
                  "hover:bg-base-100/80 dark:hover:bg-base-800/80"),
    "danger": ("border border-red-600 bg-red-600 border-transparent text-white", "hover:bg-red-600/80"),
}
_VARIANT = ("border border-base-200 bg-primary-600 border-transparent text-white", "hover:bg-primary-600/80")


def button(values: Mapping[str, Any], children: SafeString) -> SafeString:
    """A button, or a link that looks like one; `values` are those of unfold's template."""
    get = values.get
    attributes = get("attrs") or {}
    look, hovered = _VARIANTS.get(get("variant", ""), _VARIANT)
    is_off = attributes.get("disabled")
    classes = [
        _LOOK, "cursor-not-allowed opacity-50" if is_off else "cursor-pointer", _SIZES.get(get("size", ""), _SIZE),
        look, "" if is_off else hovered, get("class") or "",
    ]
    named = {
        "href": get("href"), "type": get("submit") and "submit",
        **{name: get(name) for name in ("form", "name", "value", "title")},
    }
    return format_html(
        '<{0} {1} class="{2}" {3} {4}>{5} {6}</{0}>',
        "a" if get("href") else "button",
        format_html_join(" ", '{}="{}"', ((name, value) for name, value in named.items() if value)),
        " ".join(filter(None, classes)),
        format_html_join(
            " ", "{}{}", ((name, "" if value is True else format_html('="{}"', str(value)))
                          for name, value in attributes.items() if value is not False),
        ),
        get("extra_attrs") or "", _icon(get("icon"), get("size")), children,
    )


def _icon(name: Any, size: Any) -> SafeString:
    if not name:
        return SafeString()
    place = "-ml-2" if size == "lg" else "-ml-0.5"
    return format_html('<span class="material-symbols-outlined {}">{}</span>', place, name)


_render = RenderComponentNode.render


def component(node: RenderComponentNode, context: Context) -> SafeString:
    """In the place of RenderComponentNode.render."""
    if node.template_name != _BUTTON or node.include_context or "component_class" in node.extra_context:
        return _render(node, context)
    values = {name: each.resolve(context) for name, each in node.extra_context.items()}
    with context.push(**values):
        children = node.nodelist.render(context)
    return button(values, children)
