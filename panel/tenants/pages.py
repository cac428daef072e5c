"""Lists that stay quick however long they are: what a page of the admin asks, and how it is written.

A list that is longer than COUNTED isn't counted, only told to be long. Its pages lead on from their
last row and back from their first one, which costs the same however deep they are. A page first finds its
ids, and then fetches these rows with what they show.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR
from django.core.exceptions import FieldDoesNotExist
from django.core.paginator import Page, Paginator
from django.db import DataError, NotSupportedError
from django.db.models import Count, Model, Q, QuerySet
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from unfold import fields as unfold_fields
from unfold.views import ChangeList

COUNTED = 10_000  # rows; a longer list is "more than 10,000"
MOST_PAGES = 1_000_000
AFTER, BEFORE = "after", "before"  # in a list's address: the row that this page follows, or that follows it


class CappedPaginator(Paginator):
    """Counts up to COUNTED rows. Beyond that it leads to the next and the previous page, and to any that is asked."""

    template_name = "admin/posthouse/pagination.html"
    leads_on = False  # whether a page follows the one that was asked for
    after: str | None = None
    before: str | None = None

    @cached_property
    def counted(self) -> int:
        """The rows, or COUNTED + 1."""
        rows = self.object_list
        if not isinstance(rows, QuerySet):
            return len(rows)
        return int(rows.order_by().values("pk")[: COUNTED + 1].count())

    @property
    def is_capped(self) -> bool:
        return self.counted > COUNTED

    @cached_property
    def count(self) -> int:
        return MOST_PAGES * self.per_page if self.is_capped else self.counted

    @property
    def words(self) -> str:
        return _("more than {n:,}").format(n=COUNTED) if self.is_capped else f"{self.counted:,}"

    def page(self, number: Any) -> Page:
        number = self.validate_number(number)
        rows = self._beside(number)
        if rows is None:
            rows = _page(self.object_list, (number - 1) * self.per_page, self.per_page + 1)
            self.leads_on = len(rows) > self.per_page
        return Page(rows[: self.per_page], number, self)

    def from_row(self, after: str | None, before: str | None) -> None:
        """The page is asked for by the row beside it; what is no row of the list leaves it to the number."""
        self.after, self.before = after, before

    def _beside(self, number: int) -> list[Any] | None:
        """The rows of the page after or before a row; None when none is named that serves."""
        named = self.after or self.before
        if not named or number == 1 or not isinstance(self.object_list, QuerySet):
            return None
        rows = self.object_list
        order = [str(each) for each in rows.query.order_by]
        names = [each.removeprefix("-") for each in order]
        if not named.isdecimal() or len(named) > 19 or not all(isinstance(each, str) for each in rows.query.order_by):
            return None
        if not all(_leads_on(rows.model, name) for name in names):
            return None
        values = rows.model._default_manager.filter(pk=int(named)).values_list(*names).first()
        if values is None:
            return None
        if self.after:
            found = _page(rows.filter(_beyond(order, values)), 0, self.per_page + 1)
            self.leads_on = len(found) > self.per_page
            return found
        turned = [each[1:] if each.startswith("-") else f"-{each}" for each in order]
        self.leads_on = True
        return _page(rows.order_by(*turned).filter(_beyond(turned, values)), 0, self.per_page)[::-1]


def _leads_on(model: type[Model], name: str) -> bool:
    """Whether rows that are sorted by this name can be found by its value alone.

    Not where some have none, which a comparison leaves out, nor by a related row, whose own order
    isn't that of its key, nor by what is no column.
    """
    field: Any = None
    for part in name.split("__"):
        try:
            field = model._meta.pk if part == "pk" else model._meta.get_field(part)
        except FieldDoesNotExist:
            return False
        if field.null:
            return False
        model = field.related_model or model
    return not field.is_relation


def _beyond(order: list[str], values: Sequence[Any]) -> Q:
    """What comes after a row with these values. Its first part is what an index answers."""
    name, up = order[0].removeprefix("-"), not order[0].startswith("-")
    first = Q(**{f"{name}__{'gte' if up else 'lte'}": values[0]})
    rest, same = Q(), Q()
    for each, value in zip(order, values, strict=True):
        name, up = each.removeprefix("-"), not each.startswith("-")
        rest |= same & Q(**{f"{name}__{'gt' if up else 'lt'}": value})
        same &= Q(**{name: value})
    return first & rest


def _page(rows: Any, first: int, most: int) -> list[Any]:
    """So many rows from that one on: the ids in their order, then the rows that have them.

    Else a database sorts, and passes over, whole rows with all that stands beside them. Only where the
    order is the key's there is nothing to sort, and at its beginning nothing to pass over.
    """
    if not isinstance(rows, QuerySet):
        return list(rows[first : first + most])
    if not first and _is_by_key(rows):
        return list(rows[:most])
    ids = list(rows.values_list("pk", flat=True)[first : first + most])
    found = {row.pk: row for row in rows.order_by().filter(pk__in=ids)}
    return [found[pk] for pk in ids if pk in found]


def _is_by_key(rows: QuerySet[Any]) -> bool:
    leading = next(iter(rows.query.order_by), None)
    return isinstance(leading, str) and leading.removeprefix("-") in ("pk", rows.model._meta.pk.name)


class QuickList(ChangeList):
    """The rows of one page, with the numbers of what belongs to them."""

    result_list: Any

    def get_queryset(self, request: Any, exclude_parameters: Any = None) -> QuerySet[Any]:
        for name in (AFTER, BEFORE):
            # No filter, and in no link but those to the pages beside this one.
            self.params.pop(name, None)
            self.filter_params.pop(name, None)
        return super().get_queryset(request, exclude_parameters)

    def link_on(self) -> str:
        """The address of the next page."""
        return self.get_query_string({PAGE_VAR: self.page_num + 1, AFTER: self.result_list[-1].pk})

    def link_back(self) -> str:
        """The address of the page before."""
        if not self.result_list:
            return self.get_query_string({PAGE_VAR: self.page_num - 1})
        return self.get_query_string({PAGE_VAR: self.page_num - 1, BEFORE: self.result_list[0].pk})

    def get_results(self, request: Any) -> None:
        try:
            super().get_results(request)
        except (DataError, NotSupportedError, OverflowError, ValueError, IndexError) as error:
            if not self.filter_params:
                raise
            # A value that no column of the kind can hold: told as any other odd filter is.
            raise IncorrectLookupParameters(error) from error
        self.result_list = list(self.result_list)
        count_related(self.result_list, self.model_admin.list_counts)
        self.model_admin.read_beside(self.result_list)
        if getattr(self.paginator, "is_capped", False):
            # Nothing is chosen "on all pages", and no number is told, where nobody knows how many they are.
            self.result_count = len(self.result_list)
            self.full_result_count = self.result_count
        elif not self.has_active_filters and not self.query:
            self.full_result_count = self.result_count


def count_related(rows: Iterable[Any], counted: Mapping[str, str]) -> None:
    """Set on each row how many of a relation it has, by one question a relation: {"domains_count": "domains"}."""
    by_key = {row.pk: row for row in rows}
    for name, relation in counted.items():
        first = next(iter(by_key.values()), None)
        if first is None:
            return
        field = first._meta.get_field(relation).field
        found = field.model._default_manager.filter(**{f"{field.name}__in": by_key})
        numbers = dict(found.order_by().values_list(field.attname).annotate(Count("pk")))
        for key, row in by_key.items():
            setattr(row, name, numbers.get(key, 0))


# Unfold asks each read-only field five times what it shows.
def _once_an_object(look_up: Callable[..., Any]) -> Callable[..., Any]:
    def once(name: Any, obj: Any, model_admin: Any = None) -> Any:
        known = obj.__dict__.setdefault("shown_once", {})
        if (name, model_admin) not in known:
            known[name, model_admin] = look_up(name, obj, model_admin)
        return known[name, model_admin]

    return once


unfold_fields.lookup_field = _once_an_object(unfold_fields.lookup_field)
