"""Search sources: what one is, and how the recipe's names become open ones.

Place in the path: between the recipe and the executor. A new kind of source is one module and one
line in `KINDS`, or, in someone else's package, one entry point in the group `rsearch.sources`. On
failure: a kind that does not exist is a `RecipeValueError` with the nearest name; one that cannot
be imported is a `SourceError`; setting up raises `DataError`, `SourceError` or `AccessDenied`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rsearch_cli.errors import RecipeKeyError, RecipeValueError, SourceError
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.problems import explain
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.types import Passage

KINDS: Mapping[str, str] = {
    "bm25": "rsearch_cli.search.bm25:open_bm25",
    "exa": "rsearch_cli.search.exa:open_exa",
}
"""Kind of source, as `search.sources.<name>.type` writes it, to its `SourceOpener`."""

GROUP = "rsearch.sources"
"""Entry points by which other packages add kinds, in the same form."""

Options = TypeVar("Options", bound=BaseConfig)


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


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, where the service says what it charged.

    Attributes:
        passages: Best first.
        usd: The charge in USD as the service states it, unchecked; None if it states none.
    """

    passages: list[Passage]
    usd: object = None


class SearchSource(Protocol):
    """A place to search, under one of the recipe's source names.

    It sends one request and reads one answer; cache, retries, limits and money are the client's.
    It may have two further attributes and two methods: `cache_days`, how long its answers stay good
    (None is for ever); `usd_per_search`, where a request does not cost what the recipe says;
    `check()`, called once before anything starts and not at all where nothing may be sent, which
    raises what stands in the way, such as `AccessDenied` for a key that is not set; and
    `simplify(request)`, for a source that does not tell all requests apart: it gives the one that
    stands for them, which is sent once.

    Attributes:
        fingerprint: Kind, version and everything fixed that changes an answer, such as an endpoint
            or the hash of a corpus, separated by `/`. Two sources with one fingerprint answer
            alike; the cache relies on it.
        service: Name of the outside service whose limits and budget hold; "" for what answers
            within this process.
    """

    fingerprint: str
    service: str

    async def search(self, request: SearchRequest) -> list[Passage] | Found:
        """Find up to `request.top_k` passages, best first; none is a good answer too.

        What is returned is checked: more passages than were asked for are cut off, those without
        title and text are dropped, and anything that is no passage fails the call.

        Raises:
            TransientFailure: It did not answer, but may do so when it is asked again.
            PermanentFailure: It will not answer this request.
            AccessDenied: It refuses the key or the account.
        """
        ...


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
    known = _find_kinds()
    by_kind: dict[str, dict[str, SourceConfig]] = {}
    for name, config in search.sources.items():
        if config.type not in known:
            raise RecipeValueError(_describe_unknown_kind(name, config.type, sorted(known)))
        by_kind.setdefault(config.type, {})[name] = config
    opened: dict[str, SearchSource] = {}
    for kind, configs in by_kind.items():
        opened.update(_load_opener(known[kind])(configs, corpus, index_dir))
    for source in opened.values():
        if not offline and (check := getattr(source, "check", None)) is not None:
            check()
    return {name: opened[name] for name in search.sources}


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


def _describe_unknown_kind(name: str, kind: str, known: list[str]) -> str:
    near = get_close_matches(kind, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(known)}"
    return f"search.sources.{name}.type: there is no source kind {kind!r}; {hint}"


def _describe_problem(problem: ErrorDetails, path: Sequence[str], known: Sequence[str]) -> str:
    keys = (*path, *problem["loc"])
    if problem["type"] != "extra_forbidden":
        return explain({**problem, "loc": keys})[1]
    near = get_close_matches(str(keys[-1]), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return f"unknown key {'.'.join(map(str, keys))}; {hint}"
