"""Every address of the console, as the URL resolver has them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.urls import URLPattern, URLResolver, reverse

from panel.console import urls as console
from tests.support.console import House


@dataclass(frozen=True)
class One:
    """An address: its view's pattern, and what it and those above it hold."""

    pattern: URLPattern
    holds: frozenset[str]

    @property
    def name(self) -> str:
        return self.pattern.name or ""

    def path(self, house: House, *, theirs: bool = False) -> str:
        """With Acme's rows in it, or with Beta's below Acme."""
        named = house.named(theirs=theirs)
        return reverse(f"console:{self.name}", kwargs={name: named[name] for name in self.holds})


def addresses(some: Sequence[URLPattern | URLResolver], above: frozenset[str] = frozenset()) -> Iterator[One]:
    for each in some:
        holds = above | set(each.pattern.converters)
        if isinstance(each, URLPattern):
            yield One(each, holds)
        else:
            yield from addresses(each.url_patterns, holds)


ALL = list(addresses(console.urlpatterns))
