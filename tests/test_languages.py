"""The languages of the panel: no text is without its translation, and the reader's language is the one shown."""

import gettext
import io
import re
from collections import Counter

import pytest
from django.conf import settings
from django.test import Client
from django.utils import translation

from panel.tenants.action_words import ACTIONS
from tests.support import catalogue
from tests.support.all_letters import composers
from tests.support.catalogue import Entry

LANGUAGES = [code for code, _name in settings.LANGUAGES if code != "en"]
PLACEHOLDERS = re.compile(r"%\((\w+)\)s|\{(\w*)(?:!r)?(?::[^}]*)?\}")
MARKUP = re.compile(r"</?[a-z]+[^>]*>|&[a-z]+;")


@pytest.fixture(scope="module")
def texts():
    return catalogue.texts()


def read(language: str) -> catalogue.Catalogue:
    return catalogue.read(catalogue.LOCALES / language / "LC_MESSAGES" / "django.po")


def placeholders(text: str) -> set[str]:
    return {found[1] or found[2] for found in PLACEHOLDERS.finditer(text)}


def faults(entry: Entry, forms: int) -> list[str]:
    """What is wrong with a translation."""
    whole = entry.plural or entry.text
    found = []
    if not entry.is_translated:
        found.append("isn't translated")
    if len(entry.forms) != (forms if entry.plural else 1):
        found.append("has not as many forms as the language")
    for form in filter(None, entry.forms):
        if placeholders(form) != placeholders(whole):
            found.append("has other placeholders")
        if Counter(MARKUP.findall(form)) != Counter(MARKUP.findall(whole)):
            found.append("has other markup")
        if "%" in PLACEHOLDERS.sub("", form):
            found.append("can't be filled in")
    return found


def test_the_sources_texts_are_found(texts):
    assert len(texts) > 900
    assert "panel/console/domain_words.py" in texts[None, "Reason: {reason}"].files
    assert texts["a sender", "from"].text == "from", "by its context apart from the other"
    assert texts[None, "{count} alias"].plural == "{count} aliases"
    assert (None, "Doesn't receive") in texts, "and sentences of the rules"


def test_an_action_of_the_audit_log_is_called_what_it_is():
    """In English it is searched by these words: "mailbox rules changed" is mailbox.rules_changed."""
    assert not [action for action, words in ACTIONS.items() if str(words) != re.sub(r"[._]", " ", action)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated_and_nothing_else(texts, language):
    found = read(language)
    forms = catalogue.plurals(found)
    entries = {entry.key: entry for entry in found.entries}
    assert len(entries) == len(found.entries), "each once"
    assert not [text for text in texts if text not in entries], "write: python -m tests.support.catalogue"
    assert not [text for text in entries if text not in texts] and not found.obsolete
    assert not {key: wrong for key, entry in entries.items() if (wrong := faults(entry, forms))}
    assert not [key for key, entry in entries.items() if entry.plural != texts[key].plural]


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_django_reads_is_what_was_written(language, tmp_path):
    path = catalogue.LOCALES / language / "LC_MESSAGES" / "django.po"
    found = read(language)
    made = catalogue.compiled(found)
    assert path.with_suffix(".mo").read_bytes() == made, "write: python -m tests.support.catalogue"
    known = gettext.GNUTranslations(io.BytesIO(made))
    for entry in found.entries:
        said = known.pgettext(entry.context, entry.text) if entry.context else known.gettext(entry.text)
        assert said == entry.forms[0]
    catalogue.write(tmp_path / "django.po", found)
    assert (tmp_path / "django.po").read_text() == path.read_text(), "in the form that is written anew"


@pytest.mark.once("sqlite")
@pytest.mark.django_db
def test_the_language_is_the_browsers_until_one_is_chosen():
    japanese = Client(headers={"accept-language": "ja-JP,ja;q=0.9,en;q=0.5"})
    page = japanese.get("/sign-in/").content.decode()
    assert '<html lang="ja"' in page and "パスワードをお忘れですか？" in page
    assert 'value="en" lang="en">English</button>' in page, "the other one to choose"
    chosen = japanese.post("/language/", {"language": "en", "next": "/sign-in/"})
    assert chosen["Location"] == "/sign-in/" and chosen.cookies["django_language"]["samesite"] == "Lax"
    assert '<html lang="en"' in japanese.get("/sign-in/").content.decode()
    other = Client(headers={"accept-language": "fr"}).get("/sign-in/").content.decode()
    assert '<html lang="en"' in other and 'value="ja" lang="ja">日本語</button>' in other


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_letter_says_something_of_its_own_in_the_readers_language(language):
    said = {}
    for each in ("en", language):
        with translation.override(each):
            said[each] = {name: str(compose()) for name, compose in composers("Acme").items()}
    assert len(set(said[language].values())) == len(said[language])
    english = {
        block for letter in said["en"].values() for block in re.findall(r"(?:Words|Aside)\(text='([^']+)'", letter)
    }
    assert english and not [text for text in english if text in str(said[language])]
