"""Evaluate an agent on several question sets, into one table."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import DataNotFound, UsageError
from rsearch_cli.evaluation.published import find_published
from rsearch_cli.recipe.documents import MOST_CHARS, parse_document
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.runs.output_folder import OutputFolder
from rsearch_cli.ui.tables import suite_markdown
from rsearch_cli.workflows.evaluate import no_progress, run_evaluation
from rsearch_cli.workflows.open_evaluation import check_evaluations
from rsearch_cli.workflows.specify_evaluation import DEFAULT_FOLDER, specify_evaluation

logger = logging.getLogger(__name__)

SUITE, SUITE_REPORT = "suite.json", "suite.md"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class SuiteFolder(OutputFolder):
    """The folder of a suite: a folder per question set, `suite.json` and `suite.md`."""

    def describe_resume(self) -> str:
        """Return how to continue after a stop, as the end of an error message."""
        return "run the same command again to continue from the stored answers"


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """A finished suite.

    Attributes:
        folder: Has the evaluation folder of each question set, by its name.
        results: The content of `suite.json`: `sets`, by name the `results.json` of each, and
            `published`, by name the figures of other systems for this set, which may be none.
    """

    folder: Path
    results: dict[str, Any]


def evaluate_suite(
    suite: str | Path,
    *,
    overrides: Sequence[str] = (),
    output_dir: str | Path | None = None,
    **options: Any,
) -> SuiteReport:
    """Evaluate an agent on every question set of a suite.

    Each set is an evaluation of its own, in the folder `OUTPUT_DIR/NAME`, with a budget of its own.
    All sets are checked before the first one runs; see `check_evaluations`. Called again after a
    stop, the suite continues; finished sets are only read.

    Args:
        suite: YAML file: by the name of a question set, its settings with dotted keys, as for
            `--set`.
        overrides: Settings of all sets as `key=value`; they come after those of the suite.
        output_dir: Folder of the suite; None takes `evals/` and the name of the file.
        **options: Further arguments of `evaluate`.

    Raises:
        UsageError: The file describes no question sets.
        DataNotFound: It cannot be read.
        RsearchError: As in `evaluate`.
    """
    sets = read_suite(Path(suite))
    folder = SuiteFolder(Path(output_dir or DEFAULT_FOLDER / Path(suite).stem))
    overwrite = options.pop("overwrite", False)
    progress = options.pop("progress", no_progress)
    specs = {}
    for name, settings in sets.items():
        logger.info(f"question set {name}: {', '.join(settings)}")
        specs[name] = specify_evaluation(
            overrides=[*settings, *overrides], output_dir=folder.path / name, **options
        )
    check_evaluations(specs, overwrite=overwrite)
    results: dict[str, Any] = {"sets": {}, "published": {}}
    for number, (name, spec) in enumerate(specs.items(), 1):
        logger.info(f"evaluating question set {number} of {len(sets)}: {name}")
        report = run_evaluation(spec, overwrite=overwrite, progress=progress)
        results["sets"][name] = report.results
        results["published"][name] = find_published(spec.recipe.questions.source)
    folder.write_json(SUITE, results)
    folder.write_text(SUITE_REPORT, suite_markdown(results))
    return SuiteReport(folder.path, results)


def read_suite(path: Path) -> dict[str, list[str]]:
    """Return the question sets of a suite: by name the settings of each as `key=value`.

    Raises:
        DataNotFound: The file cannot be read.
        RecipeError: It is not YAML.
        UsageError: It describes no question sets.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MOST_CHARS + 1)
    except (OSError, ValueError) as error:
        raise DataNotFound(f"the suite {path} cannot be read: {error}") from error
    data = parse_document(text, str(path)).data
    if not isinstance(data, Mapping) or not data:
        raise UsageError(f"{path} names no question sets; see --suite in docs/evaluation.md")
    sets = {}
    for name, settings in data.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError(
                f"{path}: {name!r:.80} cannot name a folder; use letters, digits, - and _"
            )
        if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
            raise UsageError(
                f"{path}: {name} needs settings, as in: {{questions.source: flashrag:hotpotqa}}"
            )
        sets[name] = [f"{key}={dump_json(value)}" for key, value in settings.items()]
    return sets
