"""transformers' `Trainer`: whether it still writes checkpoints in place and has no hook for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from rsearch_cli.compat.trl import save_checkpoint, with_staged_checkpoints


@pytest.fixture
def make_trainer(tmp_path: Path) -> Any:
    def make(kind: Any = Trainer) -> Any:
        arguments = TrainingArguments(str(tmp_path / "run"), use_cpu=True, report_to="none")
        trainer = kind(model=torch.nn.Linear(1, 1), args=arguments)
        trainer.create_optimizer_and_scheduler(1)
        return trainer

    return make


def test_the_trainer_still_writes_checkpoints_under_their_final_name(
    make_trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, `with_staged_checkpoints` may no longer be needed."""
    trainer = make_trainer()
    written: list[str] = []

    def stop(output_dir: str, *_: Any, **__: Any) -> None:
        written.append(output_dir)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "save_model", stop)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(trainer)
    assert written == [str(tmp_path / "run" / "checkpoint-0")]


def test_the_trainer_still_has_no_public_way_to_save_a_checkpoint() -> None:
    """When this fails, `save_checkpoint` is no longer needed."""
    assert not hasattr(Trainer, "save_checkpoint")


def test_a_checkpoint_is_written_to_the_staging_folder_inside_the_context(
    make_trainer: Any, tmp_path: Path
) -> None:
    steps: list[int] = []

    @contextmanager
    def place(step: int) -> Iterator[None]:
        assert not (tmp_path / "staging").exists()
        yield
        steps.append(step)

    trainer = make_trainer(with_staged_checkpoints(Trainer, tmp_path / "staging", place))
    trainer.state.global_step = 3
    save_checkpoint(trainer)
    assert steps == [3]
    assert (tmp_path / "staging" / "checkpoint-3" / "model.safetensors").is_file()
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())
