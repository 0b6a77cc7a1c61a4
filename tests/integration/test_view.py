"""The viewer's data of a real run: complete, and in agreement with what the trainer measured."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rsearch_cli.runs.files import METRICS, TRAJECTORIES, VIEW
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.viewer.collection import Collection

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def collection(finished_run) -> Collection:
    collection = Collection([finished_run])
    collection.refresh()
    return collection


def test_training_ends_with_the_file(finished_run) -> None:
    assert (finished_run / VIEW).stat().st_size > 50_000


def test_every_rollout_and_prediction_is_there(finished_run, collection) -> None:
    (source,) = collection.index()["sources"]
    assert source["warnings"] == []
    assert source["finished"]
    folder = RunFolder(finished_run)
    steps = [row["step"] for row in folder.read_rows(TRAJECTORIES)]
    assert [s for s in source["rows"]["columns"]["step"] if s is not None] == steps
    assert source["rows"]["count"] == len(steps) + 4 * 24
    assert source["curves"]["step"] == [1, 2]
    assert None not in source["rows"]["columns"]["type"]
    assert sum(len(details) for _, details in collection.parts()) == source["rows"]["count"]


def test_every_valid_plan_is_read_from_the_transcript_of_a_prediction(collection) -> None:
    for name, details in collection.parts():
        for detail in details:
            assert detail["rounds"], name
            for round_ in detail["rounds"]:
                assert round_["valid"] == (not round_["problems"])
                shown = [p["text"] for r in round_["results"] for p in r["passages"]]
                assert all(shown), detail


def test_groups_without_advantage_are_as_many_as_the_trainer_counted(
    finished_run, collection
) -> None:
    columns = collection.index()["sources"][0]["rows"]["columns"]
    rows = [row for row, group in enumerate(columns["group"]) if group is not None]
    for logged in RunFolder(finished_run).read_rows(METRICS):
        groups: dict[int, list[float]] = {}
        for row in rows:
            if columns["step"][row] == logged["step"]:
                groups.setdefault(columns["group"][row], []).append(columns["advantage"][row])
        assert {len(values) for values in groups.values()} == {4}
        even = [all(abs(a - b) < 1e-3 for a, b in pairwise(v)) for v in groups.values()]
        assert sum(even) / len(even) == pytest.approx(logged["groups/zero_advantage"])
