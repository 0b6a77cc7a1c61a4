"""Stored answers: reading them, and which batches are asked again."""

from __future__ import annotations

import json

import pytest

from rsearch_cli.errors import DataMalformed
from rsearch_cli.evaluation.stored import Batch, complete_batches, read_results
from rsearch_cli.runs.evaluation_folder import EvaluationFolder
from rsearch_cli.runs.files import ANSWERS
from rsearch_cli.types import Question


def test_results_are_read_as_they_were_stored(tmp_path, result):
    folder = EvaluationFolder(tmp_path)
    rows = [result("a", answer="É"), result("b", judge=None, judged=True)]
    folder.append(ANSWERS, [row.as_json() for row in rows])
    assert read_results(folder) == rows


@pytest.mark.parametrize(
    "change", [{"em": ...}, {"exact": 1.0}, {"references": 3}, {"inserted": [[1]]}]
)
def test_a_row_that_is_no_prediction_is_named_by_its_line(tmp_path, result, change):
    good = json.loads(json.dumps(result("a").as_json()))
    bad = {key: value for key, value in {**good, **change}.items() if value is not ...}
    folder = EvaluationFolder(tmp_path)
    folder.append(ANSWERS, [good, bad])
    with pytest.raises(DataMalformed, match=r"predictions.jsonl, line 2: .*; start over with --ov"):
        read_results(folder)


@pytest.mark.parametrize(
    ("stored", "rows", "batches"),
    [
        ("", 0, 0),
        ("a", 0, 0),
        ("ab", 2, 1),
        ("abc", 3, 2),
        ("abcx", 3, 2),
        ("abca", 3, 2),
        ("abcab", 5, 3),
        ("ba", 0, 0),
    ],
)
def test_only_complete_batches_are_continued(result, stored, rows, batches):
    plan = [
        Batch(method, [Question(id, "?", ("x",)) for id in ids])
        for method, ids in (("rsearch", "ab"), ("rsearch", "c"), ("rag", "ab"))
    ]
    methods = ["rsearch"] * 3 + ["rag"] * 2
    results = [result(id, method=m) for id, m in zip(stored, methods, strict=False)]
    assert complete_batches(results, plan) == (results[:rows], batches)
