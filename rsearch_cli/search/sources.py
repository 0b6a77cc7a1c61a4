"""Search sources: what one is, and how the recipe's names become open ones.

Place in the path: between the recipe and the executor. A new kind of source is one module and one
line in `KINDS`. On failure: a kind that does not exist is a `RecipeValueError` with the nearest
name; setting up raises `DataError` or `SourceError`; a search that fails raises `SourceError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Protocol

from rsearch_cli.errors import RecipeValueError
from rsearch_cli.recipe.schema import Search, Source
from rsearch_cli.types import Passage

KINDS: Mapping[str, str] = {"bm25": "rsearch_cli.search.bm25:open_bm25"}
"""Kind of source, as `search.sources.<name>.type` writes it, to its `SourceOpener`."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a source is asked.

    Attributes:
        query: The node's own words.
        expansion: Words that the node's parents found, as names or titles; they matter less.
        top_k: Most passages wanted.
        own_words_weight: How much more the query weighs than the expansion.
    """

    query: str
    expansion: tuple[str, ...] = ()
    top_k: int = 3
    own_words_weight: int = 3


class SearchSource(Protocol):
    """A place to search, under one of the recipe's source names.

    Attributes:
        fingerprint: Kind, version and everything fixed that changes an answer, such as the hash of
            the corpus. Two sources with one fingerprint answer alike; the cache relies on it.
    """

    fingerprint: str

    async def search(self, request: SearchRequest) -> list[Passage]:
        """Find up to `request.top_k` passages, best first; none is a good answer too.

        Raises:
            SourceError: The source did not answer, after all retries of its own.
        """
        ...


class SourceOpener(Protocol):
    """Opens all the sources of one kind at once, so that they can share what is costly."""

    def __call__(
        self,
        configs: Mapping[str, Source],
        corpus: Callable[[], Iterable[Passage]],
        index_dir: Path | None,
    ) -> Mapping[str, SearchSource]:
        """Open a source for every name in `configs`; see `open_sources` for the arguments."""
        ...


def open_sources(
    search: Search,
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None = None,
) -> dict[str, SearchSource]:
    """Open every source of a recipe.

    Args:
        search: The recipe's section.
        corpus: Gives the passages that come with the question set; called at most once, and only
            if a source asks for them.
        index_dir: Folder of the indexes; None takes the one in the cache folder.

    Returns:
        Source name, as plans write it, to the open source, in the order of the recipe.

    Raises:
        RecipeValueError: A source is of a kind that does not exist.
        DataError: A corpus cannot be used.
        SourceError: A source cannot be set up.
    """
    by_kind: dict[str, dict[str, Source]] = {}
    for name, config in search.sources.items():
        if config.type not in KINDS:
            raise RecipeValueError(_describe_unknown_kind(name, config.type))
        by_kind.setdefault(config.type, {})[name] = config
    opened: dict[str, SearchSource] = {}
    for kind, configs in by_kind.items():
        opened.update(_load_opener(kind)(configs, corpus, index_dir))
    return {name: opened[name] for name in search.sources}


def _load_opener(kind: str) -> SourceOpener:
    module, _, attribute = KINDS[kind].partition(":")
    opener: SourceOpener = getattr(import_module(module), attribute)
    return opener


def _describe_unknown_kind(name: str, kind: str) -> str:
    near = get_close_matches(kind, KINDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(sorted(KINDS))}"
    return f"search.sources.{name}.type: there is no source kind {kind!r}; {hint}"
