"""The guard of a step: when it ends a run, what it saves first, and what it says."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from rsearch_cli.errors import (
    AccessDenied,
    BudgetExceeded,
    FailureShareExceeded,
    OfflineMiss,
    RunUnsaved,
)
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.step_recovery import StepRecovery
from rsearch_cli.types import (
    NodeResult,
    PlanNode,
    Question,
    RewardParts,
    SearchPlan,
    SearchRound,
    Trajectory,
)


class FakeTrainer:
    """Saves a checkpoint the way TRL's does, and notes the next random number at that moment."""

    model = object()

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self.state = SimpleNamespace(global_step=step)
        self.saved: list[float] = []

    def _save_checkpoint(self, model: object, trial: None) -> None:
        assert model is self.model
        (self.folder / f"checkpoint-{self.state.global_step}").mkdir()
        self.saved.append(random.random())


@pytest.fixture
def recovery(tmp_path: Path) -> StepRecovery:
    return StepRecovery(RunFolder(tmp_path), max_failed_share=0.2)


def trajectories(searches: int, failed: int, rows: int = 5) -> list[Trajectory]:
    """Rows of which the first has all the searches."""
    nodes = tuple(PlanNode(f"A{i}", "river", "General") for i in range(searches))
    errors = [f"late {i}" for i in range(failed)] + [None] * (searches - failed)
    results = tuple(NodeResult(n, error=e) for n, e in zip(nodes, errors, strict=True))
    round_ = SearchRound(SearchPlan(nodes), results=results)
    question = Question("q", "Which river?", ("Tiber",))
    return [
        Trajectory(question, (5,), "", (), rounds, "Tiber", "answer")
        for rounds in ((round_,), *[()] * (rows - 1))
    ]


def parts(rows: int, unscored: int) -> list[RewardParts]:
    scores = [None] * unscored + [0.5] * (rows - unscored)
    return [RewardParts(score, 1.0, 1.0, score) for score in scores]


@pytest.mark.parametrize("kind", [BudgetExceeded, AccessDenied, OfflineMiss])
def test_what_stops_a_run_keeps_its_class_and_says_what_is_saved(
    recovery: StepRecovery, tmp_path: Path, kind: type[Exception]
) -> None:
    trainer = FakeTrainer(tmp_path, step=7)
    recovery.remember()
    with pytest.raises(kind) as stop, recovery.watch(trainer):
        raise kind("no money")
    saved = tmp_path / "checkpoint-7"
    assert saved.is_dir()
    assert type(stop.value) is kind
    line = f"no money; 7 steps are finished and saved in {saved}; --resume continues from there"
    assert str(stop.value) == line


def test_the_checkpoint_has_the_random_state_of_the_finished_step(
    recovery: StepRecovery, tmp_path: Path
) -> None:
    trainer = FakeTrainer(tmp_path, step=7)
    recovery.remember()
    state = random.getstate()
    expected = random.random()
    with pytest.raises(BudgetExceeded), recovery.watch(trainer):
        random.random()  # a rollout draws
        raise BudgetExceeded("no money")
    assert trainer.saved == [expected]
    random.setstate(state)


def test_a_step_that_is_saved_already_is_left_alone(recovery: StepRecovery, tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, step=7)
    (tmp_path / "checkpoint-7").mkdir()
    recovery.remember()
    with pytest.raises(BudgetExceeded, match="checkpoint-7; --resume"), recovery.watch(trainer):
        raise BudgetExceeded("no money")
    assert trainer.saved == []


def test_before_the_first_step_there_is_nothing_to_save(
    recovery: StepRecovery, tmp_path: Path
) -> None:
    trainer = FakeTrainer(tmp_path, step=0)
    line = "no money; no step was finished; --resume starts with the first step"
    with pytest.raises(BudgetExceeded, match=line), recovery.watch(trainer):
        raise BudgetExceeded("no money")
    assert list(tmp_path.iterdir()) == []


def test_what_stopped_a_run_is_told_also_where_nothing_can_be_saved(
    recovery: StepRecovery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: FakeTrainer, model: object, trial: None) -> None:
        raise RunUnsaved("checkpoint-7 could not be written")

    monkeypatch.setattr(FakeTrainer, "_save_checkpoint", fail)
    recovery.remember()
    line = "^no money; checkpoint-7 could not be written$"
    with (
        pytest.raises(BudgetExceeded, match=line),
        recovery.watch(FakeTrainer(tmp_path, step=7)),
    ):
        raise BudgetExceeded("no money")


def test_a_bug_is_not_dressed_up_as_a_stop(recovery: StepRecovery, tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, step=7)
    recovery.remember()
    with pytest.raises(ZeroDivisionError), recovery.watch(trainer):
        1 / 0  # noqa: B018
    assert trainer.saved == []


def test_failures_up_to_the_share_are_allowed(recovery: StepRecovery) -> None:
    recovery.check(trajectories(10, 2), parts(5, 1))


def test_too_many_failed_searches_stop_the_run(recovery: StepRecovery) -> None:
    line = (
        "3 of 10 searches of the step failed, a share of 0.3; budget.max_failed_share is 0.2; "
        "last error: late 2"
    )
    with pytest.raises(FailureShareExceeded, match=line):
        recovery.check(trajectories(10, 3), parts(5, 0))


def test_too_many_failed_verdicts_stop_the_run(recovery: StepRecovery) -> None:
    line = (
        "2 of 5 verdicts of the step failed, a share of 0.4; budget.max_failed_share is 0.2; "
        "last error: the judge took too long"
    )
    with pytest.raises(FailureShareExceeded, match=line):
        recovery.check(trajectories(10, 0), parts(5, 2), "the judge took too long")


def test_too_many_failed_parts_stop_the_run_but_failed_searches_count_once(
    recovery: StepRecovery,
) -> None:
    failed = [RewardParts(0.5, 1.0, 1.0, None, {"cost": None}, "cost: no answer")] * 2
    line = "2 of 5 reward parts of the step failed, a share of 0.4; .* last error: cost: no answer"
    with pytest.raises(FailureShareExceeded, match=line):
        recovery.check(trajectories(10, 0), parts(3, 0) + failed)
    searched_in_vain = [failed[0], *parts(1, 0)]
    recovery.check(trajectories(10, 2, rows=2), searched_in_vain)


def test_a_share_of_one_never_stops(tmp_path: Path) -> None:
    StepRecovery(RunFolder(tmp_path), 1.0).check(trajectories(4, 4, rows=2), parts(2, 2))


def test_a_share_of_zero_stops_at_the_first_failure(tmp_path: Path) -> None:
    line = r"1 of 1000 searches of the step failed, a share of 0\.001; budget"
    with pytest.raises(FailureShareExceeded, match=line):
        StepRecovery(RunFolder(tmp_path), 0.0).check(trajectories(1000, 1, rows=2), parts(2, 0))
