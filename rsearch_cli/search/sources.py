"""Search sources: the base class, and how the names in a recipe become open sources.

A new kind of source is one module and one line in `KINDS` or, in another package, one entry point
in the group `rsearch.sources`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rsearch_cli.errors import RecipeKeyError, RecipeValueError, SourceError
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.problems import explain
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.services.http import check_proxies
from rsearch_cli.services.retry import NO_LIMITS, CallLimits
from rsearch_cli.types import Passage

KINDS: Mapping[str, str] = {
    "bm25": "rsearch_cli.search.bm25:open_bm25",
    "dense": "rsearch_cli.search.dense:open_dense",
    "exa": "rsearch_cli.search.exa:open_exa",
    "http": "rsearch_cli.search.retriever:open_retrievers",
    "hybrid": "rsearch_cli.search.dense:open_hybrid",
    "searxng": "rsearch_cli.search.searxng:open_searxng",
    "serper": "rsearch_cli.search.serper:open_serper",
    "tavily": "rsearch_cli.search.tavily:open_tavily",
    "wikipedia": "rsearch_cli.search.wikipedia:open_wikipedia",
}
"""Kind of source, as `search.sources.<name>.type` writes it, to its `SourceOpener`."""

GROUP = "rsearch.sources"
"""Group of the entry points by which other packages add kinds, in the same form."""

READ_INSTALL = "pip install -c constraints.txt '.[read]'"
"""Command that installs what reading pages needs, in a clone."""

DAYS_KEPT = 30.0
"""How long an answer stays valid, unless the source or the recipe says otherwise."""

NEWS_DAYS_KEPT = 1.0
"""The same for news."""

Options = TypeVar("Options", bound=BaseConfig)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One request to a source.

    Attributes:
        query: The node's own words.
        expansion: Names or titles that the node's parents found; they matter less.
        top_k: Most passages wanted.
        own_words_weight: How much more the query weighs than the expansion.
        match_titles: Whether passages come first whose title occurs in `mentions` or, without any,
            in the query. A source that does not know titles may ignore both.
        mentions: Texts of the parents' passages from which the expansion was taken.
    """

    query: str
    expansion: tuple[str, ...] = ()
    top_k: int = 3
    own_words_weight: int = 3
    match_titles: bool = False
    mentions: tuple[str, ...] = ()

    def as_one_text(self) -> SearchRequest:
        """Return the request for a service that does not weigh the expansion separately."""
        return SearchRequest(" ".join([self.query, *self.expansion]), top_k=self.top_k)


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search whose service reports its charge.

    Attributes:
        passages: Best first.
        usd: The charge in USD as the service reports it, unchecked; None if it reports none.
        times: For a service that reports credits, how many times the expected price it charged,
            unchecked: what a credit costs depends on the user's plan. None if it reports none.
    """

    passages: list[Passage]
    usd: object = None
    times: object = None


class SearchSource(ABC):
    """A place to search, under one of the recipe's source names.

    A source sends one request and reads one answer; caching, retries, limits and the budget are
    handled by the client that calls it.

    Attributes:
        fingerprint: Kind, version and everything fixed that changes an answer, such as an endpoint
            or the hash of a corpus, separated by `/`. The cache relies on it: two sources with the
            same fingerprint give the same answers.
        service: Name of the outside service whose limits and budget apply; "" for a source within
            this process.
        usd_per_search: List price of a request in USD, 0 if it is free; None if it is not known. A
            kind whose price depends on its options overrides `price` instead.
        limits: What the rules of the service allow; the recipe's `search.service` may be stricter.
        cache_days: How long answers stay valid; None is forever, which suits a source whose
            fingerprint changes with its content. The recipe's `cache_days` takes precedence.
    """

    fingerprint: str
    service: str = ""
    usd_per_search: ClassVar[float | None] = None
    limits: CallLimits = NO_LIMITS
    cache_days: float | None = DAYS_KEPT

    @abstractmethod
    async def search(self, request: SearchRequest) -> list[Passage] | Found:
        """Return up to `request.top_k` passages, best first; none is a valid answer too.

        The result is checked: passages beyond `top_k` and those without title and text are dropped,
        and anything that is not a passage fails the call.

        Raises:
            TransientFailure: There was no answer, but there may be one at the next attempt.
            PermanentFailure: The request will not be answered.
            AccessDenied: The service refuses the key or the account.
        """

    @classmethod
    def price(cls, name: str, search: SearchConfig) -> float | None:
        """Return the list price of a request in USD, from the settings alone; None if not known.

        Args:
            name: Name of the source.
            search: The recipe's section, with the settings of the source in `sources[name]`.
        """
        return cls.usd_per_search

    def check(self) -> None:  # noqa: B027 (optional)
        """Raise what would prevent every search, such as `AccessDenied` for a missing key.

        Called once before a run starts, except when the cache mode is offline.
        """

    def simplify(self, request: SearchRequest) -> SearchRequest:
        """Return the one request that stands for all that the source cannot tell apart.

        By default, it lacks `match_titles` and `mentions`, because few sources know their titles: a
        request that differs in no more than that must not be sent, and paid for, again.
        """
        return replace(request, match_titles=False, mentions=())

    async def read(self, passage: Passage) -> str | None:
        """Return the whole text behind a passage of this source, one paragraph a line.

        Called for short passages if the recipe sets `search.read_top`, with the cache and the
        limits of the source, and without a price. None, the default, leaves it to rsearch to
        request the page if the passage's id is a URL.

        Raises:
            TransientFailure: There was no answer, but there may be one at the next attempt.
            PermanentFailure: The text cannot be had.
        """
        return None

    async def close(self) -> None:  # noqa: B027 (optional)
        """Close connections; a later search opens them again."""


class SourceOpener(Protocol):
    """Opens all the sources of one kind at once, so that they can share what is costly."""

    def __call__(
        self,
        configs: Mapping[str, SourceConfig],
        corpus: Callable[[], Iterable[Passage]],
        index_dir: Path | None,
    ) -> Mapping[str, SearchSource]:
        """Open a source for every name in `configs`; see `open_sources` for the arguments."""
        ...


Opener = TypeVar("Opener", bound=SourceOpener)


def opens(source: type[SearchSource]) -> Callable[[Opener], Opener]:
    """Decorate an opener with the class of its sources, which tells their price unopened."""

    def mark(opener: Opener) -> Opener:
        opener.source = source  # type: ignore[attr-defined]
        return opener

    return mark


def open_sources(
    search: SearchConfig,
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None = None,
    *,
    offline: bool = False,
) -> dict[str, SearchSource]:
    """Open every source of a recipe.

    Args:
        search: The recipe's section.
        corpus: Gives the passages that come with the question set; called at most once, and only
            if a source asks for them.
        index_dir: Folder of the indexes; None takes the one in the cache folder.
        offline: Nothing will be sent, so no source needs its key.

    Returns:
        Source name, as plans write it, to the open source, in the order of the recipe.

    Raises:
        RecipeValueError: A source is of a kind that does not exist.
        DataError: A corpus cannot be used.
        SourceError: A source cannot be set up.
        AccessDenied: A source has no key.
    """
    if search.read_top and not offline:
        check_reading()
    opened: dict[str, SearchSource] = {}
    for kind, opener in load_openers(search).items():
        configs = {n: config for n, config in search.sources.items() if config.type == kind}
        opened.update(opener(configs, corpus, index_dir))
    for name, source in opened.items():
        if not isinstance(source, SearchSource):
            raise SourceError(
                f"search.sources.{name}.type: the kind {search.sources[name].type!r} opened a "
                f"{type(source).__name__}, which is not a SearchSource"
            )
    if not offline:
        for source in opened.values():
            source.check()
    return {name: opened[name] for name in search.sources}


def load_openers(search: SearchConfig) -> dict[str, SourceOpener]:
    """Return the opener of every kind of source in a recipe.

    Raises:
        RecipeValueError: A source is of a kind that does not exist.
        SourceError: A kind cannot be loaded.
    """
    for name, config in search.sources.items():
        check_kind(config.type, f"search.sources.{name}.type")
    known = _find_kinds()
    kinds = dict.fromkeys(config.type for config in search.sources.values())
    return {kind: _load_opener(known[kind]) for kind in kinds}


def check_kind(kind: str, where: str) -> None:
    """Check that there is a kind of source.

    Args:
        kind: Its name.
        where: What names it, for the message.

    Raises:
        RecipeValueError: There is none.
    """
    known = sorted(_find_kinds())
    if kind not in known:
        near = get_close_matches(kind, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(known)}"
        raise RecipeValueError(f"{where}: there is no source kind {kind!r}; {hint}")


def check_reading() -> None:
    """Check what reading pages needs.

    Raises:
        SourceError: The library that extracts texts is missing, or the proxy settings of the
            environment cannot be used.
    """
    if find_spec("trafilatura") is None:
        raise SourceError(
            "search.read_top needs trafilatura, which is not installed; install it with: "
            f"{READ_INSTALL}"
        )
    check_proxies()


def read_options(model: type[Options], name: str, config: SourceConfig) -> Options:
    """Check the options of one source.

    Args:
        model: What its kind of source allows.
        name: Name of the source, for messages.
        config: Its settings.

    Raises:
        RecipeKeyError: All problems are unknown keys.
        RecipeValueError: Some value is not allowed.
    """
    try:
        return model.model_validate(config.options)
    except ValidationError as error:
        problems = error.errors()
        path = ("search", "sources", name, "options")
        sentences = [
            _describe_problem(problem, path, list(model.model_fields)) for problem in problems
        ]
        absent = [str(p["loc"][0]) for p in problems if p["type"] == "missing"]
        if absent:
            options = ", ".join(f"{option}: …" for option in absent)
            example = f"{{type: {config.type}, options: {{{options}}}}}"
            sentences[-1] += f", as in {example}, for --source or in a recipe"
        unknown = all(problem["type"] == "extra_forbidden" for problem in problems)
        raise (RecipeKeyError if unknown else RecipeValueError)("; ".join(sentences)) from None


def _find_kinds() -> dict[str, EntryPoint]:
    """All kinds by name; ours cannot be replaced, so a recipe means the same everywhere."""
    ours = {kind: EntryPoint(kind, path, GROUP) for kind, path in KINDS.items()}
    return {point.name: point for point in entry_points(group=GROUP)} | ours


def _load_opener(point: EntryPoint) -> SourceOpener:
    try:
        opener: SourceOpener = point.load()
    except (ImportError, AttributeError) as error:
        package = f" of the package {point.dist.name}" if point.dist else ""
        raise SourceError(
            f"source kind {point.name!r}{package} cannot be loaded from {point.value} ({error})"
        ) from error
    return opener


def _describe_problem(problem: ErrorDetails, path: Sequence[str], known: Sequence[str]) -> str:
    keys = (*path, *problem["loc"])
    if problem["type"] != "extra_forbidden":
        return explain({**problem, "loc": keys})[1]
    near = get_close_matches(str(keys[-1]), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return f"unknown key {'.'.join(map(str, keys))}; {hint}"
