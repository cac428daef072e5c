"""Form fields of this app's pages in the admin."""

from typing import Any

from unfold.widgets import INPUT_CLASSES, UnfoldAdminTextareaWidget

from panel.tenants import form_fields


class LinesField(form_fields.LinesField):
    """One value a line, as a list."""

    widget = UnfoldAdminTextareaWidget


class DayField(form_fields.DayField):
    """A day, by the browser's own calendar."""

    def __init__(self, **kwargs: Any) -> None:
        classes = " ".join(name for name in INPUT_CLASSES if name != "max-w-2xl")
        super().__init__(look={"class": f"{classes} ph-day"}, **kwargs)
