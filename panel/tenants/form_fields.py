"""Form fields of the admin and the console: several lines, a size, a day. How they look is each one's own."""

from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.tenants.shown import read_size, size


class LinesField(forms.CharField):
    """One value a line, as a list."""

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        return [line.strip() for line in (super().to_python(value) or "").splitlines() if line.strip()]


class SizeField(forms.CharField):
    """A number of bytes, written as "5 GB". Empty: None."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return size(value) if isinstance(value, int) else value

    def to_python(self, value: Any) -> Any:
        try:
            return read_size((super().to_python(value) or "")[:100])
        except ValueError:
            raise forms.ValidationError(_("This is no size: write one such as 5 GB or 500 MB.")) from None


class DayField(forms.DateField):
    """A day, by the browser's own calendar. `look`: the widget's further attributes."""

    def __init__(self, *, look: dict[str, str] | None = None, **kwargs: Any) -> None:
        widget = forms.DateInput(format="%Y-%m-%d", attrs={"type": "date", **(look or {})})
        super().__init__(required=False, input_formats=["%Y-%m-%d"], widget=widget, **kwargs)
        self.error_messages["invalid"] = gettext_lazy("This is no day: write it as 2026-08-31.")
