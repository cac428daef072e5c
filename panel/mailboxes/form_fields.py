"""Form fields of this app's pages."""

from typing import Any

from django import forms
from unfold.widgets import INPUT_CLASSES, UnfoldAdminTextareaWidget


class LinesField(forms.CharField):
    """One value a line, as a list."""

    widget = UnfoldAdminTextareaWidget

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, (list, tuple)) else value

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        return [line.strip() for line in (text or "").splitlines() if line.strip()]


class DayField(forms.DateField):
    """A day, by the browser's own calendar."""

    def __init__(self, **kwargs: Any) -> None:
        classes = " ".join(name for name in INPUT_CLASSES if name != "max-w-2xl")
        widget = forms.DateInput(format="%Y-%m-%d", attrs={"type": "date", "class": f"{classes} ph-day"})
        super().__init__(required=False, input_formats=["%Y-%m-%d"], widget=widget, **kwargs)
        self.error_messages["invalid"] = "This is no day: write it as 2026-08-31."
