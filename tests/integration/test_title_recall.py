"""The benchmark of the search layer alone: plans by hand find what one query does not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def benchmark(repository: Path) -> Any:
    path = repository / "benchmarks" / "title_recall.py"
    spec = importlib.util.spec_from_file_location("title_recall", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_plans_by_hand_find_all_titles(benchmark: Any, hotpot_file: Path) -> None:
    report = benchmark.measure(hotpot_file) | {
        "bridge": benchmark.measure_bridge(hotpot_file.parent)
    }
    planned = report["planned"]
    assert report["one_query_all"]["n"] == 60 and planned["one query"]["n"] == 20
    with_edges = planned["plan, expand_dependents=linked"]["share"]
    assert with_edges >= 0.85
    assert with_edges > planned["plan, expand_dependents=entities"]["share"] >= 0.8
    assert with_edges > planned["plan, expand_dependents=none"]["share"]
    assert planned["plan, expand_dependents=none"]["share"] > planned["one query"]["share"]
    if bridge := report["bridge"]:
        shares = {name: figures["share"] for name, figures in bridge.items()}
        assert shares["plan, expand_dependents=linked"] >= 0.95
        assert shares["plan, expand_dependents=linked"] > shares["plan, expand_dependents=entities"]
        assert shares["plan, expand_dependents=none"] < 0.2 and shares["one query"] < 0.2
    kept = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))
    assert kept == report, "run benchmarks/title_recall.py again"


def test_without_the_questions_it_says_so(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("sys.argv", ["title_recall.py", "--data", str(tmp_path / "no.jsonl")])
    benchmark.main()
    assert json.loads(capsys.readouterr().out) == {"skipped": "no.jsonl is not here"}
