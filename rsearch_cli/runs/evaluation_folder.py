"""The folder of an evaluation: its settings, answers, results and report.

    evaluation.json  recipe.yaml  predictions.jsonl  spend.json  results.json  report.md

`rsearch eval` stores the answers batch by batch and continues from them after a stop.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rsearch_cli.errors import DataMalformed, RunFolderError, RunFolderOccupied
from rsearch_cli.runs import files
from rsearch_cli.runs.folder_lock import check_writable, lock_folder
from rsearch_cli.runs.json_text import dump_json, read_json_object
from rsearch_cli.runs.jsonl import damaged_line
from rsearch_cli.runs.output_folder import OutputFolder


class EvaluationFolder(OutputFolder):
    """One evaluation on disk; `locked` creates the folder."""

    @property
    def holds_evaluation(self) -> bool:
        """Whether an evaluation was started here."""
        return (self.path / files.EVALUATION).exists()

    def describe_resume(self) -> str:
        """Return how to continue after a stop, as the end of an error message."""
        return "run the same command without --overwrite to continue from the stored answers"

    def check(self) -> None:
        """Check that an evaluation can be stored here; change nothing.

        Raises:
            RunFolderOccupied: The folder contains other files.
            RunFolderUnwritable: The path is a file, or nothing can be written there.
        """
        check_writable(self.path)
        if self.holds_evaluation or not self.path.exists():
            return
        others = [
            path.name for path in self.path.iterdir() if path.name not in files.OF_AN_EVALUATION
        ]
        if others:
            raise RunFolderOccupied(
                f"output folder {self.path} contains other files, such as {others[0]}, and no "
                "evaluation; choose another folder with --output-dir"
            )

    @contextmanager
    def locked(self, *, overwrite: bool = False) -> Iterator[None]:
        """Create the folder if necessary, and lock it for the block.

        Args:
            overwrite: Forget what an earlier evaluation has spent.

        Raises:
            RunFolderOccupied: Another process is evaluating here.
            RunFolderUnwritable: It cannot be created.
        """
        with lock_folder(self.path, "evaluating"):
            if overwrite:
                (self.path / files.SPEND).unlink(missing_ok=True)
            yield

    def begin(self, settings: Mapping[str, Any], recipe: str, *, overwrite: bool = False) -> None:
        """Begin an evaluation, or continue the one that is stored.

        Args:
            settings: Everything the predictions depend on, as JSON values.
            recipe: The recipe as YAML.
            overwrite: Remove what an earlier evaluation left.

        Raises:
            RunFolderError: The stored evaluation has other settings.
        """
        if self.holds_evaluation and not overwrite:
            self.check_settings(settings)
        if overwrite:
            for name in (files.ANSWERS, files.RESULTS, files.REPORT, files.EVALUATION):
                (self.path / name).unlink(missing_ok=True)
        self.write_text(files.RECIPE, recipe)
        self.write_json(files.EVALUATION, settings)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Check that an evaluation with these settings can continue the stored one.

        Raises:
            RunFolderError: A setting differs; the first one is named.
        """
        differing = setting_differences(self.read_settings(), json.loads(dump_json(settings)))
        if differing:
            key, (stored, given) = next(iter(differing.items()))
            raise RunFolderError(
                f"{self.path} contains an evaluation with {key} = {dump_json(stored)}, now it is "
                f"{dump_json(given)}; choose another --output-dir, or start over with --overwrite"
            )

    def read_settings(self) -> dict[str, Any]:
        """Return the settings of the stored evaluation.

        Raises:
            RunFolderError: There is none, or its settings cannot be read.
        """
        try:
            settings = read_json_object(self.path / files.EVALUATION)
            if not isinstance(settings.get("methods"), list):
                raise ValueError("it names no methods")
            return settings
        except FileNotFoundError:
            raise RunFolderError(
                f"{self.path} contains no evaluation (no {files.EVALUATION}); create one with "
                f"rsearch eval --output-dir {self.path}"
            ) from None
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"{self.path / files.EVALUATION} cannot be read ({error}); start over with "
                "--overwrite"
            ) from error

    def read_answers(self) -> list[dict[str, Any]]:
        """Return all complete rows of `predictions.jsonl`, in order.

        Raises:
            DataMalformed: A complete line is not a JSON object.
        """
        path = self.path / files.ANSWERS
        if (line := damaged_line(path)) is not None:
            raise DataMalformed(
                f"{path}, line {line}: not a JSON object; start over with --overwrite"
            )
        return self.read_rows(files.ANSWERS)


def setting_differences(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, by dotted key, with both values; None where one has none."""
    old, new = _flatten(first), _flatten(second)
    return {key: (old.get(key), new.get(key)) for key in old | new if old.get(key) != new.get(key)}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
