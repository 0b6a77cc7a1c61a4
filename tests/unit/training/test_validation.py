"""Validation: when it is due, which adapter is kept, and that training does not notice."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.errors import RunUnsaved
from rsearch_cli.runs.files import VALIDATION
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.validation import Validation, read_best


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def save(text: str, path: Path) -> None:
    (path / "adapter").write_text(text)


def validate(folder: RunFolder, scores: dict[int, float], **settings: Any) -> list[tuple]:
    """Validate after each step that has a score; return (step, best step) of each."""
    told: list[tuple] = []
    current = iter(scores.values())
    validation = Validation(
        lambda: {"f1": next(current), "em": 0.5},
        folder,
        settings.get("every_steps", 2),
        settings.get("last_step", 9),
    )
    for step in scores:
        assert validation.is_due(step)
        row, best = validation.run(step, partial(save, f"step {step}"))
        told.append((row["step"], best["step"]))
    return told


def test_it_is_due_every_few_steps_and_after_the_last(folder: RunFolder) -> None:
    validation = Validation(dict, folder, 4, 10)
    assert [step for step in range(11) if validation.is_due(step)] == [0, 4, 8, 10]


def test_the_best_adapter_is_kept_with_its_step_and_score(folder: RunFolder) -> None:
    told = validate(folder, {0: 0.2, 2: 0.6, 4: 0.6, 6: 0.1})
    assert told == [(0, 0), (2, 2), (4, 2), (6, 2)], "of equal ones the first"
    assert (folder.best / "adapter").read_text() == "step 2"
    best = read_best(folder)
    assert best is not None and (best["step"], best["f1"], best["em"]) == (2, 0.6, 0.5)
    rows = folder.read_rows(VALIDATION)
    assert [(row["step"], row["f1"]) for row in rows] == [(0, 0.2), (2, 0.6), (4, 0.6), (6, 0.1)]
    assert all(row["seconds"] >= 0 for row in rows)


def test_a_resumed_run_knows_the_best_and_what_is_done(folder: RunFolder) -> None:
    validate(folder, {0: 0.2, 2: 0.6})
    resumed = Validation(dict, folder, 2, 9)
    assert resumed.best is not None and resumed.best["step"] == 2
    assert [step for step in range(6) if resumed.is_due(step)] == [4]
    assert validate(folder, {4: 0.5, 6: 0.7}) == [(4, 2), (6, 6)]


def test_the_random_generators_are_put_back(folder: RunFolder) -> None:
    import numpy
    import torch

    def draw() -> tuple[float, float, float]:
        return random.random(), float(numpy.random.rand()), float(torch.rand(1))

    state = (random.getstate(), numpy.random.get_state(), torch.get_rng_state())
    expected = draw()
    random.setstate(state[0])
    numpy.random.set_state(state[1])
    torch.set_rng_state(state[2])
    validation = Validation(lambda: {"f1": draw()[0]}, folder, 1, 1)
    validation.run(1, lambda path: None)
    assert draw() == expected


def test_an_adapter_that_cannot_be_written_leaves_the_best_one(folder: RunFolder) -> None:
    validate(folder, {0: 0.2})

    def fail(path: Path) -> None:
        (path / "adapter").write_text("half")
        raise OSError(28, "No space left on device")

    validation = Validation(lambda: {"f1": 0.9}, folder, 2, 9)
    with pytest.raises(RunUnsaved, match=r"best could not be written in .*No space left"):
        validation.run(2, fail)
    assert (folder.best / "adapter").read_text() == "step 0"
    assert json.loads((folder.best / "validation.json").read_text())["f1"] == 0.2
    assert [row["step"] for row in folder.read_rows(VALIDATION)] == [0]
    assert sorted(p.name for p in folder.path.iterdir()) == ["best", VALIDATION]


def test_an_evaluation_that_fails_puts_the_generators_back_too(folder: RunFolder) -> None:
    def fail() -> dict[str, float]:
        random.random()
        raise RuntimeError("no money")

    state = random.getstate()
    validation = Validation(fail, folder, 1, 1)
    with pytest.raises(RuntimeError, match="no money"):
        validation.run(1, lambda path: None)
    assert random.getstate() == state
    assert validation.is_due(1) and not folder.best.exists()
