"""Several runs and evaluations together: the index and the parts of one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rsearch_cli.viewer.comparisons import Comparisons
from rsearch_cli.viewer.schema import SCHEMA, Detail, Index
from rsearch_cli.viewer.source import OnRows, ViewSource


class Collection:
    """The sources of a page.

    Args:
        paths: Folders of runs and evaluations.

    Raises:
        RunFolderError: One of them is neither.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        names = _names(paths)
        self._comparisons = Comparisons()
        self.sources = [ViewSource(path, name) for path, name in zip(paths, names, strict=True)]

    def refresh(self, on_rows: OnRows = lambda count: None) -> bool:
        """Read what was added to the folders; return whether there was anything."""
        return any([source.refresh(on_rows) for source in self.sources])

    @property
    def count(self) -> int:
        """Number of rows of all sources."""
        return sum(source.count for source in self.sources)

    def index(self, *, live: bool = False) -> Index:
        """Return the index, as of the last `refresh`."""
        return {
            "schema": SCHEMA,
            "title": " and ".join(source.name for source in self.sources),
            "live": live,
            "sources": [source.describe() for source in self.sources],
            "comparisons": self._comparisons.make(self.sources),
        }

    def state(self) -> object:
        """Return a value that changes whenever `index` would."""
        return [source.state() for source in self.sources]

    def parts(self) -> Iterator[tuple[str, list[Detail]]]:
        """Yield name and content of each part, reading one at a time."""
        for at, source in enumerate(self.sources):
            for number in range(source.parts):
                yield f"{at}-{number}", source.read_part(number)


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the names of the folders, numbered where two have the same."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for path in paths:
        name = path.resolve().name or "root"
        seen[name] += 1
        names.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    return names
