"""Compare two stored evaluations of the same questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsearch_cli.errors import DataError
from rsearch_cli.evaluation.comparison import compare
from rsearch_cli.evaluation.methods import METHODS
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.stored import read_results
from rsearch_cli.runs.evaluation_folder import EvaluationFolder, setting_differences

ResultsByMethod = dict[str, list[EvalResult]]

# Differences in these change no score.
_NOT_COMPARED = ("methods", "batch_size", "rescored")


def compare_evaluations(first: str, second: str) -> dict[str, Any]:
    """Compare two evaluations method by method.

    Args:
        first: An evaluation folder, or `FOLDER:METHOD`.
        second: The same. If neither names a method, all methods that both have are compared.

    Returns:
        `methods`: a comparison each (see `evaluation.comparison.compare`), with the names of both
        sides as `first` and `second`; `settings`: one line per setting that differs.

    Raises:
        RunFolderError: A folder contains no evaluation.
        DataError: The two have no method in common, or different questions.
    """
    folder_a, method_a = _split_method(first)
    folder_b, method_b = _split_method(second)
    results_a, results_b = _results_by_method(folder_a), _results_by_method(folder_b)
    if method_a or method_b:
        a, b = method_a or method_b or "", method_b or method_a or ""
        _require_method(folder_a, a, results_a)
        _require_method(folder_b, b, results_b)
        pairs = [(a, b)]
    else:
        pairs = [(name, name) for name in results_a if name in results_b]
    if not pairs:
        raise DataError(
            f"the evaluations have no method in common: {', '.join(results_a) or 'none'} and "
            f"{', '.join(results_b) or 'none'}; name the two to compare as FOLDER:METHOD"
        )
    stored_a, stored_b = (EvaluationFolder(path).read_settings() for path in (folder_a, folder_b))
    return {
        "methods": [
            {
                "first": f"{folder_a}:{a}",
                "second": f"{folder_b}:{b}",
                **compare(results_a[a], results_b[b]),
            }
            for a, b in pairs
        ],
        "settings": [
            f"{key}: {old} and {new}"
            for key, (old, new) in setting_differences(stored_a, stored_b).items()
            if key not in _NOT_COMPARED
        ],
    }


def _split_method(given: str) -> tuple[Path, str | None]:
    folder, colon, method = given.rpartition(":")
    return (Path(folder), method) if colon and method in METHODS else (Path(given), None)


def _results_by_method(path: Path) -> ResultsByMethod:
    folder = EvaluationFolder(path)
    methods = [name for name in folder.read_settings()["methods"] if isinstance(name, str)]
    results = read_results(folder)
    by_method = {name: [r for r in results if r.method == name] for name in methods}
    return {name: rows for name, rows in by_method.items() if rows}


def _require_method(folder: Path, method: str, results: ResultsByMethod) -> None:
    if method not in results:
        raise DataError(
            f"{folder} has no answers of method {method!r}; it has {', '.join(results) or 'none'}"
        )
