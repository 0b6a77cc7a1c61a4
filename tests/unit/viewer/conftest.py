"""Run folders as rsearch writes them, made row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from stored_rows import RECIPE_TEXT

from rsearch_cli.runs.files import RECIPE, SUMMARY, TRAJECTORIES, predictions_name
from rsearch_cli.runs.jsonl import append_rows


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run folder of rollouts and predictions, by phase."""

    def make(rows: list[dict] | None = None, name: str = "one", **phases: list[dict]) -> Path:
        folder = tmp_path / name
        (folder / "predictions").mkdir(parents=True)
        (folder / RECIPE).write_text(RECIPE_TEXT, encoding="utf-8")
        if rows is not None:
            append_rows(folder / TRAJECTORIES, rows)
        for phase, answers in phases.items():
            append_rows(folder / predictions_name(*phase.split("_")), answers)
        if phases:
            (folder / SUMMARY).write_text(json.dumps({"model": "/home/ada/models/seven-b"}))
        return folder

    return make


@pytest.fixture
def make_evaluation(tmp_path: Path) -> Callable[..., Path]:
    """Makes an evaluation folder."""

    def make(rows: list[dict], name: str = "evaluation") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "evaluation.json").write_text('{"methods": ["rsearch", "direct"]}')
        append_rows(folder / "predictions.jsonl", rows)
        return folder

    return make
