"""What a tenant's account would see of the admin's pages, were it let in: nothing of another tenant's.

The console will show tenants these pages; until then the admin's door is taken out here, so that only the
scope holds them back. All of it is generated: each list's filters, each form's foreign keys, each autocomplete.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import models
from django.http import HttpResponse
from django.urls import reverse

from panel.tenants import audit
from panel.tenants.models import User
from tests.panel.test_admin_generated import CASES, actions_of, filled, named, url
from tests.support.standing import Standing, everything, undone

pytestmark = [pytest.mark.django_db, pytest.mark.once("postgresql")]  # which rows are whose, test_scoping asks of both
MODELS = list(CASES)
SCOPED = [model for model in MODELS if not CASES[model].unscoped]
FOREIGN_KEYS = [
    (model, one.name) for model in MODELS for one in model._meta.get_fields()
    if isinstance(one, (models.ForeignKey, models.ManyToManyField))
]


@pytest.fixture
def _django_db_helper(standing: Standing) -> Iterator[None]:
    """In place of pytest-django's, which closes the connection after each test: the world is in its transaction."""
    with undone():
        yield


@pytest.fixture
def member(standing: Standing, monkeypatch: pytest.MonkeyPatch) -> "Member":
    monkeypatch.setattr(User, "is_staff", True)
    monkeypatch.setattr(User, "has_perm", lambda self, perm, obj=None: True)
    monkeypatch.setattr(User, "has_module_perms", lambda self, app_label: True)
    return Member(standing)


class Member:
    """An owner of Acme, asking; knows what is Beta's."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing

    def get(self, path: str, data: dict[str, Any] | None = None) -> HttpResponse:
        return self.standing.client("tenant owner").get(path, data or {})

    def post(self, path: str, data: dict[str, Any]) -> HttpResponse:
        return self.standing.client("tenant owner").post(path, data)

    def mine(self, model: type[models.Model]) -> models.Model:
        return self.standing.rows[model].mine

    def theirs(self, model: type[models.Model]) -> list[models.Model]:
        """Rows of Beta's; of what is the provider's none."""
        if model not in SCOPED:
            return []
        house = self.standing.house
        known = (house.beta, house.beta_domain, house.beta_mailbox)
        return [self.standing.rows[model].theirs, *(one for one in known if type(one) is model)]

    def all_of_theirs(self) -> Iterator[models.Model]:
        for model in SCOPED:
            yield from self.theirs(model)

    def reads_of_beta(self, answer: HttpResponse) -> str:
        """What of Beta's stands in the answer, if anything does."""
        content = answer.content.decode()
        found = re.search(r"beta\.test|\bbeta\b|ben@", content, re.I)
        return content[max(0, found.start() - 80):found.end() + 80] if found else ""


def filters_of(member: Member, model: type[models.Model]) -> Iterator[tuple[str, list[str]]]:
    """Each filter's parameter, with values that name what is another tenant's."""
    page = member.get(url(model, "changelist"))
    for one in page.context["cl"].filter_specs:
        relation = getattr(getattr(one, "field", None), "remote_field", None)
        values = [str(row.pk) for row in member.theirs(relation.model)] if relation else ["1", "x", ""]
        for name in one.expected_parameters():
            yield name, values


@pytest.mark.parametrize("model", SCOPED, ids=named)
def test_no_filter_shows_or_names_a_row_of_another_tenant(model, member):
    listed = url(model, "changelist")
    account = User.objects.get(email="tenant.owner@elsewhere.test")
    own = set(model.objects.for_user(account).values_list("pk", flat=True))
    assert own
    plain = member.get(listed)
    assert not member.reads_of_beta(plain)
    asked = 0
    for name, values in filters_of(member, model):
        for value in values:
            page = member.get(listed, {name: value})
            asked += 1
            assert page.status_code in (200, 302), (name, value)
            assert not member.reads_of_beta(page), (name, value)
            if page.status_code == 200:
                assert {row.pk for row in page.context["cl"].result_list} <= own, (name, value)
    assert asked or not plain.context["cl"].filter_specs


@pytest.mark.parametrize("model", MODELS, ids=named)
def test_no_list_is_narrowed_down_by_a_secret(model, member):
    """Whether a secret begins with a letter can't be asked by an address of one's own making; nor by the provider's."""
    path = f"{getattr(model, 'to_tenant', 'tenant')}__".removeprefix("pk__")
    own = [one.name for one in model._meta.concrete_fields if one.name in ("password", "secret", "notes")]
    for lookup in (*own, f"{path}notes", f"{path}memberships__user__password", "user__password", "credentials__secret"):
        asked = {f"{lookup}__startswith": "a"}
        for ask in (member.get, member.standing.client("owner").get):
            assert ask(url(model, "changelist"), asked).status_code in (302, 400), lookup


@pytest.mark.parametrize("model", SCOPED, ids=named)
def test_no_search_finds_a_row_of_another_tenant(model, member):
    theirs = {row.pk for row in member.theirs(model)}
    for asked in {"beta", "ben@beta.test", *(text for row in member.theirs(model) for text in (str(row), str(row.pk)))}:
        page = member.get(url(model, "changelist"), {"q": asked})
        assert page.status_code == 200
        assert not theirs & {found.pk for found in page.context["cl"].result_list}, asked


def test_the_search_in_everything_finds_no_row_of_another_tenant(member):
    for asked in {"beta", "ben@beta.test", *map(str, member.all_of_theirs())}:
        answer = member.get(reverse("admin:search"), {"s": asked, "q": asked, "extended": "1"})
        assert answer.status_code in (200, 302), asked
        for row in member.all_of_theirs():
            assert url(type(row), "change", row.pk) not in answer.content.decode() + answer.get("Location", ""), asked


@pytest.mark.parametrize(("model", "name"), FOREIGN_KEYS, ids=named)
def test_no_autocomplete_offers_a_row_of_another_tenant(model, name, member):
    """Every foreign key is asked for, whether or not a form has it; with nothing typed and with each of their names."""
    target = model._meta.get_field(name).remote_field.model
    where = {"app_label": model._meta.app_label, "model_name": model._meta.model_name, "field_name": name}
    theirs = {str(row.pk) for row in member.theirs(target)}
    for typed in ("", "beta", *map(str, member.theirs(target))):
        answer = member.get(reverse("admin:autocomplete"), {**where, "term": typed})
        if answer.status_code == 403:  # the target has no admin of its own, or none that can be searched
            continue
        assert answer.status_code == 200
        assert not theirs & {row["id"] for row in answer.json()["results"]}, typed
        assert not member.reads_of_beta(answer) or target not in SCOPED


def choices_of(form: forms.BaseForm) -> list[tuple[str, forms.ModelChoiceField]]:
    return [(name, one) for name, one in form.fields.items() if isinstance(one, forms.ModelChoiceField)]


@pytest.mark.parametrize("model", [model for model in MODELS if CASES[model].add], ids=named)
def test_a_link_to_a_form_names_no_row_of_another_tenant(model, member):
    """A value in the address fills in a field: its name must not be shown for an id that was guessed."""
    where = url(model, "add")
    for name, one in choices_of(member.get(where).context["adminform"].form):
        for row in member.theirs(one.queryset.model):
            assert not member.reads_of_beta(member.get(where, {name: row.pk})), name


@pytest.mark.parametrize("model", [model for model in SCOPED if CASES[model].change], ids=named)
def test_a_changed_row_takes_no_foreign_key_to_another_tenant(model, member):
    where = url(model, "change", member.mine(model).pk)
    page = member.get(where)
    form = page.context["adminform"].form
    data = filled(CASES[model], form, CASES[model].change)
    before = everything()
    for name, one in choices_of(form):
        for row in member.theirs(one.queryset.model):
            answer = member.post(where, {**data, name: row.pk})
            assert answer.status_code == 200, (name, "was taken")
            assert name in answer.context["adminform"].form.errors
            assert not member.reads_of_beta(answer)
    assert everything() == before


@pytest.mark.parametrize("model", SCOPED, ids=named)
def test_an_act_on_all_rows_leaves_those_of_another_tenant(model, member):
    """Also with their ids sent along, and with "all that match" chosen."""
    pks = [row.pk for row in (member.mine(model), *member.theirs(model))]
    before = everything()[model.__name__]
    untouched = set(map(str, (row for row in before if row[0] in pks[1:])))
    for name in {*admin.site._registry[model].actions, "delete_selected"}:
        for across in ("0", "1"):
            with undone():
                member.post(url(model, "changelist"), {
                    "action": name, ACTION_CHECKBOX_NAME: pks, "select_across": across, "post": "yes",
                })
                assert untouched <= set(map(str, everything()[model.__name__])), name


@pytest.mark.parametrize("model", SCOPED, ids=named)
def test_an_own_row_s_pages_name_nothing_of_another_tenant(model, member):
    """Nor does its history, when another tenant's account or the provider did something to it."""
    row = member.mine(model)
    audit.record(None, "beta.seen", row, tenant=member.standing.house.beta)
    for name in ("change", "history", "delete", *actions_of(model)):
        answer = member.get(url(model, name, row.pk))
        assert answer.status_code in (200, 302, 403), name
        assert not member.reads_of_beta(answer), name
