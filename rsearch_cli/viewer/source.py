"""One run or evaluation folder, read as data of the viewer, and read on while it grows.

Rows are never held in memory: the columns are, with the positions of the parts in the files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rsearch_cli.errors import DataMalformed, RecipeError, RunFolderError
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.recipe.documents import MOST_CHARS as MOST_RECIPE_CHARS
from rsearch_cli.recipe.documents import parse_document
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.recipe.training import RewardConfig, highest_reward
from rsearch_cli.runs.confined_paths import open_own
from rsearch_cli.runs.files import (
    ANSWERS,
    EVALUATION,
    METRICS,
    PREDICTIONS,
    RECIPE,
    RESULTS,
    SPEND,
    SUMMARY,
    TRAJECTORIES,
    VALIDATION,
    predictions_name,
)
from rsearch_cli.runs.json_text import MOST_CHARS, parse_json
from rsearch_cli.runs.jsonl import Row, scan_rows
from rsearch_cli.viewer.curves import CurveData
from rsearch_cli.viewer.privacy import public_settings, public_value
from rsearch_cli.viewer.rows import (
    DAMAGES,
    Context,
    prediction_columns,
    prediction_detail,
    trajectory_columns,
    trajectory_detail,
)
from rsearch_cli.viewer.schema import PART_BYTES, PART_ROWS, Detail, Source
from rsearch_cli.viewer.table import Table, describe_advantages

logger = logging.getLogger(__name__)

_TAIL = 512
OnRows = Callable[[int], None]
_PHASES = tuple((e, d) for e in ("before", "after") for d in ("greedy", "sampled"))


@dataclass(slots=True)
class _File:
    """A JSONL file and how far it was read.

    Attributes:
        end: Position behind the last complete line that was read.
        lines: Number of these lines.
        damaged: Numbers of those that are not rows.
        tail: The last bytes that were read; others there mean that the file was replaced.
    """

    name: str
    phase: str | None = None
    end: int = 0
    lines: int = 0
    damaged: list[int] = field(default_factory=list)
    tail: bytes = b""


@dataclass(slots=True)
class _PartPlace:
    """Where the rows of a part are stored."""

    first: int
    count: int
    file: _File
    start: int
    end: int


class ViewSource:
    """A run or an evaluation.

    Args:
        path: Its folder.
        name: What it is called on the page.

    Raises:
        RunFolderError: The folder holds neither.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        try:
            present = set(os.listdir(path))
        except (OSError, ValueError) as error:  # the latter for a null byte
            reason = error.strerror if isinstance(error, OSError) else error
            raise RunFolderError(
                f"{path} cannot be read: {reason}; give the folder of a run or an evaluation"
            ) from error
        self.is_evaluation = not present.isdisjoint((EVALUATION, ANSWERS))
        if present.isdisjoint((EVALUATION, ANSWERS, RECIPE, METRICS, TRAJECTORIES, PREDICTIONS)):
            raise RunFolderError(
                f"{path} is neither a run nor an evaluation (no {RECIPE}, no {EVALUATION}); give "
                "the folder that rsearch train or rsearch eval wrote"
            )
        self.generation = 0
        self._recipe_written = self._written(RECIPE)
        self._reported: set[str] = set()
        self._forget()

    def _forget(self) -> None:
        self.__dict__.pop("settings", None)
        self.__dict__.pop("context", None)
        self._table = Table(self._setting("train", "num_generations"))
        self._curves, self._validations = CurveData(), CurveData()
        self.answers: dict[str, list[EvalResult]] = {}
        self._parts: list[_PartPlace] = []
        if self.is_evaluation:
            self._files = [_File(ANSWERS)]
        else:
            before, sampled, *after = (
                _File(predictions_name(*phase), "-".join(phase)) for phase in _PHASES
            )
            self._files = [before, sampled, _File(TRAJECTORIES), *after]
        self._figures = [_File(METRICS), _File(VALIDATION)]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The stored recipe, nested; {} if there is none that can be read."""
        try:
            with open(self.path / RECIPE, encoding="utf-8", opener=open_own) as file:
                stored = parse_document(file.read(MOST_RECIPE_CHARS + 1), RECIPE).data
        except FileNotFoundError:
            return {}
        except RecipeError as error:
            self._warn(f"{error}; its settings are left out")
            return {}
        except (OSError, ValueError) as error:
            self._warn(f"{RECIPE} cannot be read: {' '.join(str(error).split())[:200]}")
            return {}
        return stored if isinstance(stored, dict) else {}

    @cached_property
    def context(self) -> Context:
        """What the recipe says about the rows."""
        protocol = self.settings.get("protocol")
        stored = protocol if isinstance(protocol, dict) else {}
        known = {key: stored[key] for key in ProtocolConfig.model_fields if key in stored}
        try:
            rules = ProtocolConfig.model_validate(known)
        except ValidationError:
            rules = ProtocolConfig()
        return Context(
            rules,
            judged=self._setting("reward", "answer") == "judge",
            mask_truncated=self._setting("train", "mask_truncated") is True,
        )

    def refresh(self, on_rows: OnRows = lambda count: None) -> bool:
        """Read what was added to the folder; return whether there was anything.

        Args:
            on_rows: Called with the number of rows read since its last call.

        Raises:
            RunFolderError: A file is a link or not a regular file.
        """
        recipe_written = self._written(RECIPE)
        replaced = any(self._was_replaced(file) for file in (*self._files, *self._figures))
        if replaced or recipe_written != self._recipe_written:
            self.generation += 1
            self._recipe_written = recipe_written
            self._forget()
        before = [file.end for file in (*self._files, *self._figures)]
        for file, figures in zip(self._figures, (self._curves, self._validations), strict=True):
            for row, _ in self._new_rows(file):
                if not figures.add(row):
                    file.damaged.append(file.lines)
        for file in self._files:
            self._read_file(file, on_rows)
        for file in (*self._files, *self._figures):
            file.tail = self._tail(file)
            self._report_damage(file)
        return before != [file.end for file in (*self._files, *self._figures)]

    def describe(self) -> Source:
        """Return everything but the details, as of the last `refresh`."""
        scale = self._setting("train", "scale_rewards")
        known = scale if scale in ("group", "batch", "none") else "group"
        by_part = self._setting("reward", "normalise_parts") is True
        if not by_part:
            self._table.fill_advantages(known)
        trained = not self.is_evaluation
        summary = self._read_object(RESULTS if self.is_evaluation else SUMMARY)
        services = self._read_object(SPEND).get("services")
        return {
            "name": self.name,
            "kind": "evaluation" if self.is_evaluation else "run",
            "finished": bool(summary),
            "generation": self.generation,
            "settings": public_settings(self.settings),
            "summary": public_value(summary),
            "spend": services if isinstance(services, dict) else {},
            "advantages": (
                describe_advantages(known, stored=scale == known)
                if trained and not by_part
                else None
            ),
            "highest": self._highest_reward(),
            "curves": self._curves.as_curves(),
            "validations": self._validations.rows,
            "rows": self._table.as_rows(),
            "parts": [{"first": part.first, "count": part.count} for part in self._parts],
            "warnings": sorted(self._reported),
        }

    def read_part(self, number: int) -> list[Detail]:
        """Return the details of a part, read from its file.

        Raises:
            LookupError: There is no such part.
            RunFolderError: The file has changed since `refresh`.
        """
        if not 0 <= number < len(self._parts):
            raise LookupError(f"part {number} of {len(self._parts)}")
        part = self._parts[number]
        details = []
        for row, end in scan_rows(self.path / part.file.name, part.start):
            if end > part.end:
                break
            read = self._read_row(row, part.file) if row is not None else None
            if read is not None:
                details.append(read[1])
        if len(details) != part.count:
            raise RunFolderError(f"{self.path / part.file.name} was changed while it was read")
        return details

    def state(self) -> object:
        """Return a value that changes whenever `describe` would."""
        written = [self._written(name) for name in (SUMMARY, RESULTS, SPEND)]
        return self.generation, [file.end for file in (*self._files, *self._figures)], written

    @property
    def count(self) -> int:
        """Number of rows."""
        return self._table.count

    @property
    def parts(self) -> int:
        """Number of parts."""
        return len(self._parts)

    def _read_file(self, file: _File, on_rows: OnRows) -> None:
        start = file.end
        for row, end in self._new_rows(file):
            if (read := self._read_row(row, file)) is None:
                file.damaged.append(file.lines)
            else:
                self._place_row(file, start, end)
                self._table.add(read[0])
                if file.name != TRAJECTORIES:
                    self._keep_answer(row, read[0]["phase"])
                on_rows(1)
            start = end

    def _keep_answer(self, row: Row, phase: str) -> None:
        """Keep a prediction for the comparisons, without its transcript."""
        result = replace(EvalResult.from_json(row), transcript="", inserted=())
        self.answers.setdefault(phase, []).append(result)

    def _place_row(self, file: _File, start: int, end: int) -> None:
        """Assign the next row to the last part, or to a new one."""
        part = self._parts[-1] if self._parts else None
        if (
            part is None
            or part.file is not file
            or part.count == PART_ROWS
            or part.end - part.start >= PART_BYTES
        ):
            part = _PartPlace(self._table.count, 0, file, start, start)
            self._parts.append(part)
        part.count += 1
        part.end = end

    def _read_row(self, row: Row, file: _File) -> tuple[dict[str, Any], Detail] | None:
        """Return the columns and the detail of a row, or None if it is not one of rsearch."""
        try:
            if file.name == TRAJECTORIES:
                detail = trajectory_detail(row, self.context)
                return trajectory_columns(row, self.context), detail
            result = EvalResult.from_json(row)
            phase = file.phase or result.method
            return prediction_columns(result, phase), prediction_detail(result, self.context)
        except (DataMalformed, *DAMAGES):
            return None

    def _new_rows(self, file: _File) -> Iterator[tuple[Row, int]]:
        """Yield the rows that were added to a file since the last time."""
        path = self.path / file.name
        try:
            for row, end in scan_rows(path, file.end):
                file.lines += 1
                file.end = end
                if row is None:
                    file.damaged.append(file.lines)
                else:
                    yield row, end
        except OSError as error:
            self._warn(f"{file.name} cannot be read: {error.strerror}")

    def _was_replaced(self, file: _File) -> bool:
        """Whether the rows that were read may be gone from the file."""
        return file.end > 0 and self._tail(file) != file.tail

    def _tail(self, file: _File) -> bytes:
        """Return the end of what was read of a file, as it is now."""
        try:
            with open(self.path / file.name, "rb", opener=open_own) as opened:
                opened.seek(max(0, file.end - _TAIL))
                return opened.read(min(file.end, _TAIL))
        except OSError:
            return b""

    def _written(self, name: str) -> int:
        """When a file was written; 0 without one."""
        try:
            return (self.path / name).stat().st_mtime_ns
        except OSError:
            return 0

    def _report_damage(self, file: _File) -> None:
        if file.damaged:
            others = len(file.damaged) - 1
            more = f", and {others} more like it" if others else ""
            self._warn(f"{file.name}, line {file.damaged[0]}: not a row of rsearch{more}; left out")

    def _warn(self, line: str) -> None:
        if line not in self._reported:
            start = line.split(":")[0]
            self._reported = {known for known in self._reported if known.split(":")[0] != start}
            self._reported.add(line)
            logger.warning(f"{self.path}: {line}")

    def _setting(self, section: str, name: str) -> Any:
        values = self.settings.get(section)
        value = values.get(name) if isinstance(values, dict) else None
        return value if isinstance(value, str | int) else None

    def _highest_reward(self) -> float:
        reward = self.settings.get("reward")
        stored = reward.get("extra", {}) if isinstance(reward, dict) else {}
        try:
            return highest_reward(RewardConfig.model_validate({"extra": stored}).extra)
        except ValidationError:
            return highest_reward({})

    def _read_object(self, name: str) -> dict[str, Any]:
        try:
            with open(self.path / name, encoding="utf-8", opener=open_own) as file:
                value = parse_json(file.read(MOST_CHARS))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            self._warn(f"{name}: cannot be read ({' '.join(str(error).split())[:200]})")
            return {}
        return value if isinstance(value, dict) else {}
