"""The folder of an evaluation: what was asked with which settings, and what came of it.

    evaluation.json  recipe.yaml  predictions.jsonl  spend.json  results.json  report.md

Place in the path: `rsearch eval` writes it batch by batch and goes on from it, `compare` reads two.
On failure: a folder of something else is `RunFolderOccupied`, one of an evaluation with other
settings `RunFolderError` naming the first that differs, one that cannot be written
`RunFolderUnwritable`. A write that fails, as on a full disk, is a `RunUnsaved` and leaves the file
as it was. A kill at any moment leaves whole batches and at most one cut short, which is dropped and
asked again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rsearch_cli.errors import (
    DataMalformed,
    RunFolderError,
    RunFolderOccupied,
)
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.recipe.trust import remember_own
from rsearch_cli.runs.atomic_write import saving, staged
from rsearch_cli.runs.confined_paths import open_own
from rsearch_cli.runs.files import (
    ANSWERS,
    EVALUATION,
    LOCK,
    PARTIAL,
    RECIPE,
    REPORT,
    RESULTS,
    SPEND,
    SPEND_LOCK,
)
from rsearch_cli.runs.folder_lock import claim_folder, require_writable
from rsearch_cli.runs.json_text import dump_json, read_json_object
from rsearch_cli.runs.jsonl import append_rows, write_lines

_NO_RECORD = (ValueError, TypeError, KeyError, AttributeError, RecursionError, DataMalformed)
OURS = (EVALUATION, RECIPE, ANSWERS, RESULTS, REPORT, SPEND, SPEND_LOCK, LOCK, PARTIAL)


class EvaluationFolder:
    """One evaluation on disk.

    Args:
        path: The folder; made by `open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def holds_evaluation(self) -> bool:
        """Whether an evaluation was started here."""
        return (self.path / EVALUATION).exists()

    def check(self) -> None:
        """See whether an evaluation can be kept here; changes nothing.

        Raises:
            RunFolderOccupied: There are files of something else.
            RunFolderUnwritable: It is a file, or nothing can be written here.
        """
        require_writable(self.path)
        if self.holds_evaluation or not self.path.exists():
            return
        strangers = [p.name for p in self.path.iterdir() if p.name not in OURS]
        if strangers:
            raise RunFolderOccupied(
                f"output folder {self.path} holds files that are no evaluation, such as "
                f"{strangers[0]}; choose another with --output-dir"
            )

    @contextmanager
    def locked(self, *, overwrite: bool = False) -> Iterator[None]:
        """Make the folder if need be, and keep other processes out in the `with` block.

        Args:
            overwrite: Forget what an earlier evaluation has spent.

        Raises:
            RunFolderOccupied: Another process is at work in it.
            RunFolderUnwritable: It cannot be made.
        """
        with claim_folder(self.path, "evaluating"):
            if overwrite:
                (self.path / SPEND).unlink(missing_ok=True)
            yield

    def begin(self, settings: Mapping[str, Any], recipe: str, *, overwrite: bool = False) -> None:
        """Begin an evaluation in the folder, or continue the one that is there.

        Args:
            settings: All that the predictions depend on, as JSON values.
            recipe: The recipe as YAML.
            overwrite: Remove what an earlier evaluation left.

        Raises:
            RunFolderError: It holds an evaluation with other settings.
        """
        if self.holds_evaluation and not overwrite:
            self.require_same(settings)
        if overwrite:
            for name in (ANSWERS, RESULTS, REPORT, EVALUATION):
                (self.path / name).unlink(missing_ok=True)
        self.write_text(RECIPE, recipe)
        remember_own(recipe)
        self.write_json(EVALUATION, settings)

    def read_settings(self) -> dict[str, Any]:
        """What the evaluation was made with.

        Raises:
            RunFolderError: There is none here, or its settings cannot be read.
        """
        try:
            settings = read_json_object(self.path / EVALUATION)
            if not isinstance(settings.get("methods"), list):
                raise ValueError("it names no methods")
            return settings
        except FileNotFoundError:
            raise RunFolderError(
                f"{self.path} holds no evaluation (no {EVALUATION}); make one with rsearch eval "
                f"--output-dir {self.path}"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise RunFolderError(
                f"{self.path / EVALUATION} cannot be read ({error}); start anew with --overwrite"
            ) from error

    def read_records(self) -> list[EvalResult]:
        """All rows that were stored whole, in order.

        Raises:
            DataMalformed: A row is not what is stored; the line is named.
        """
        path = self.path / ANSWERS
        if not path.exists():
            return []
        # By bytes: a line that was cut short may end inside of a character.
        with open(path, "rb", opener=open_own) as file:
            lines = file.read().split(b"\n")[:-1]
        return [_read_line(path, number, line) for number, line in enumerate(lines, 1)]

    def keep(self, records: Sequence[EvalResult]) -> None:
        """Store these rows and no others."""
        self.write_text(ANSWERS, write_lines(r.as_json() for r in records))

    def append(self, records: Sequence[EvalResult]) -> None:
        """Store further rows, on disk when this returns.

        Raises:
            RunUnsaved: The write failed; the file is as it was.
        """
        with saving(self.path, ANSWERS, self.describe_resume):
            append_rows(self.path / ANSWERS, (r.as_json() for r in records))

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole: readers see the old one or the new one.

        Raises:
            RunUnsaved: The write failed; the old one is still there.
        """
        with staged(self.path, name, self.describe_resume) as file:
            file.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON, whole."""
        self.write_text(name, dump_json(value, indent=2) + "\n")

    def describe_resume(self) -> str:
        """Say in a few words how an evaluation that stops now can go on."""
        return "the same command without --overwrite goes on from the answers that are there"

    def require_same(self, settings: Mapping[str, Any]) -> None:
        """Check that an evaluation with these settings can be continued here.

        Raises:
            RunFolderError: A setting differs; the first that does is named.
        """
        stored = flatten(self.read_settings())
        given = flatten(json.loads(dump_json(settings)))
        for key in [*stored, *(k for k in given if k not in stored)]:
            old, new = stored.get(key), given.get(key)
            if old != new:
                raise RunFolderError(
                    f"{self.path} holds an evaluation with {key} = {dump_json(old)}, and this one "
                    f"has {dump_json(new)}; choose another --output-dir, or start anew with "
                    "--overwrite"
                )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def whole_batches(
    records: Sequence[EvalResult], batches: Sequence[tuple[str, Sequence[str]]]
) -> tuple[list[EvalResult], int]:
    """The stored rows that can be gone on from.

    A batch that is not whole is asked again as a whole: greedy decoding in half precision may
    depend on what else is in the batch.

    Args:
        records: What was stored.
        batches: `(method, question ids)` of every batch, in the order of asking.

    Returns:
        The rows of the leading batches that are whole, and how many batches those are.
    """
    kept: list[EvalResult] = []
    for done, (method, ids) in enumerate(batches):
        rows = records[len(kept) : len(kept) + len(ids)]
        if [(r.method, r.id) for r in rows] != [(method, i) for i in ids]:
            return kept, done
        kept += rows
    return kept, len(batches)


def _read_line(path: Path, number: int, line: bytes) -> EvalResult:
    try:
        return EvalResult.from_json(json.loads(line))
    except _NO_RECORD as error:
        raise DataMalformed(
            f"{path}, line {number}: {error}; start anew with --overwrite"
        ) from error
