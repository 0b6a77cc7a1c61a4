"""Tracks a run with Weights & Biases: curves, spend, trajectories and the recipe.

Tracking never stops a run. If W&B is unreachable or rejects the key, the run is tracked offline; a
later error ends the tracking with one line. W&B's own collection of console output, git, code,
requirements, machine and command line is switched off.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Literal

from rsearch_cli.distributed import is_main
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.services import WandbConfig
from rsearch_cli.runs.files import WANDB, WANDB_RUN
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.services.keys import (
    WANDB_VARIABLE,
    environment_with_login,
    find_flaw,
    find_secrets,
    hide_secrets,
)
from rsearch_cli.terminal import finite, printable, shorten

logger = logging.getLogger(__name__)

KEY_VARIABLE = WANDB_VARIABLE
MODE_VARIABLE = "WANDB_MODE"
COLUMNS = (
    *("step", "question", "references", "answer", "reward", "answer score", "plan score"),
    *("format score", "plan", "transcript"),
)
# Characters per cell; trajectories.jsonl has the full text.
_CELL = 4000

Mode = Literal["online", "offline"]


class Tracker:
    """One tracked run, as an `Observer`; without a run every method does nothing.

    A separate thread calls wandb, because logging a table waits for the server.

    Args:
        settings: The recipe's `wandb` section.
        folder: Where wandb's own files are.
        run: The run object of wandb, or None.
    """

    def __init__(self, settings: WandbConfig, folder: RunFolder, run: Any) -> None:
        self._settings = settings
        self._folder = folder
        self._run = run
        self._closed = False
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        if run is not None:
            self._thread.start()

    def on_step(self, row: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]]) -> None:
        """Send a finished step, and every few steps some of its trajectories.

        Args:
            row: Its row of `metrics.jsonl`.
            rollouts: Its rows of `trajectories.jsonl`.
        """
        step = int(row["step"])
        chosen = rollouts[: self._settings.table_rows]
        wanted = step == 1 or step % self._settings.table_every_steps == 0
        self._add(partial(self._log, step, _figures(row), chosen if wanted else ()))

    def on_validation(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Send a validation and the best one so far: rows of `validation.jsonl`."""
        figures = {f"validation/{key}": value for key, value in _figures(row).items()}
        figures["validation/best_f1"] = best["f1"]
        self._add(partial(self._log, int(row["step"]), figures))

    def on_alarm(self, step: int, name: str, reason: str) -> None:
        """Do nothing: the step's row counts its alarms."""

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Send the result of the run: the figures before and after, and their difference."""
        figures = {
            f"{block}/{key}": value
            for block in ("before", "after", "difference")
            for key, value in _figures(summary[block]).items()
        }
        self._add(lambda: self._run.summary.update(figures))

    def close(self, exit_code: int) -> None:
        """Let wandb send the rest, for at most `wandb.timeout_seconds`."""
        if self._run is None:
            return
        self._add(lambda: self._run.finish(exit_code=exit_code))
        self._add(None)
        self._thread.join(self._settings.timeout_seconds)
        if self._thread.is_alive():
            logger.warning("W&B: no response; what was not sent is in metrics.jsonl")
        self._closed = True
        with suppress(OSError):
            clean_logs(self._folder)

    def _add(self, job: Callable[[], None] | None) -> None:
        if self._thread.is_alive():
            self._jobs.put(job)

    def _work(self) -> None:
        """Run one job after the other until the first that fails."""
        while job := self._jobs.get():
            try:
                job()
            except Exception as error:
                if not self._closed:
                    logger.warning(f"W&B: tracking stopped, the run continues: {_reason(error)}")
                return

    def _log(
        self,
        step: int,
        figures: dict[str, float],
        rollouts: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        # A resumed run repeats the steps since its checkpoint, which W&B already has.
        if step >= self._run.step:
            table = {"trajectories": _table(step, rollouts)} if rollouts else {}
            self._run.log({**figures, **table}, step=step)


@contextmanager
def open_tracker(recipe: Recipe, folder: RunFolder) -> Iterator[Tracker]:
    """Track a run for the duration of the block; a resumed run continues in the same W&B run.

    Args:
        recipe: All of it is sent, without secrets; its `wandb` section is read.
        folder: Stores the id of the W&B run, and W&B's own files.
    """
    settings = recipe.wandb
    first_process = is_main()
    run = _start(recipe, folder) if settings.enabled and first_process else None
    tracker = Tracker(settings, folder, run)
    try:
        yield tracker
    except BaseException:
        tracker.close(exit_code=1)
        raise
    tracker.close(exit_code=0)


def _start(recipe: Recipe, folder: RunFolder) -> Any:
    """Start a wandb run, online if requested and possible; None if that fails."""
    mode = _choose_mode(recipe.wandb.mode)
    if mode == "disabled":
        return None
    key = environment_with_login().get(KEY_VARIABLE, "").strip()
    problem = (
        find_flaw(KEY_VARIABLE, key)
        if key
        else (f"{KEY_VARIABLE} is not set, and `wandb login` has left no key in ~/.netrc")
    )
    if mode == "online" and problem is not None:
        logger.warning(f"W&B: {problem}; tracking offline, in {folder.path / WANDB}")
        mode = "offline"
    try:
        if mode == "online":
            try:
                return _init(recipe, folder, "online")
            except Exception as error:
                logger.warning(f"W&B: {_reason(error)}; tracking offline, in {folder.path / WANDB}")
                import wandb

                wandb.teardown()  # it would consider the id in use
                clean_logs(folder)
        return _init(recipe, folder, "offline")
    except Exception as error:
        logger.warning(f"W&B: the run is not tracked: {_reason(error)}")
        return None


def _choose_mode(wanted: Mode) -> Mode | Literal["disabled"]:
    """Return the recipe's mode, unless the environment restricts it."""
    given = os.environ.get(MODE_VARIABLE, "").strip().lower()
    if given == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
        logger.warning("W&B: disabled by an environment variable; the run is not tracked")
        return "disabled"
    if given in ("", "online", "run", "shared"):  # run and dryrun are older names
        return wanted
    if given in ("offline", "dryrun"):
        return "offline"
    logger.warning(
        f"W&B: {MODE_VARIABLE} is {given!r}, not online, offline or disabled; the run is not "
        "tracked"
    )
    return "disabled"


def _init(recipe: Recipe, folder: RunFolder, mode: Mode) -> Any:
    # Read when wandb is imported; otherwise wandb reports its own errors to its makers.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    seconds = recipe.wandb.timeout_seconds
    # Logging in prints a line unless this is silent.
    wandb.setup(wandb.Settings(silent=True, login_timeout=seconds))
    return wandb.init(
        project=recipe.wandb.project,
        name=recipe.wandb.run_name,
        id=_run_id(folder),
        resume="allow",
        dir=str(folder.path),
        mode=mode,
        config=without_secrets(recipe.model_dump(), environment_with_login()),
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            save_code=False,
            init_timeout=seconds,
            finish_timeout=seconds,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )


def _run_id(folder: RunFolder) -> str:
    """Return the id of the run in W&B, the same after a resume."""
    path = folder.path / WANDB_RUN
    if path.exists():
        with folder.reading(WANDB_RUN):
            return str(folder.read_json(WANDB_RUN)["id"])
    chosen = secrets.token_hex(4)
    folder.write_json(WANDB_RUN, {"id": chosen})
    return chosen


def clean_logs(folder: RunFolder) -> None:
    """Remove secrets from wandb's own logs, which may contain responses that repeat the key."""
    for path in (folder.path / WANDB).rglob("*.log"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if (clean := without_secrets(text, environment_with_login())) != text:
            path.write_text(clean, encoding="utf-8")


def without_secrets(value: Any, environment: Mapping[str, str]) -> Any:
    """Return a JSON value with every secret of the environment in its strings replaced by `***`.

    Args:
        value: Mappings, lists, strings and numbers.
        environment: Variables; those named like a key or a token are secrets.
    """
    if isinstance(value, Mapping):
        return {key: without_secrets(inner, environment) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner, environment) for inner in value]
    if isinstance(value, str):
        return hide_secrets(value, find_secrets(environment))
    return value


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row, with the number of active alarms."""
    figures = {key: number for key in row if (number := finite(row, key)) is not None}
    if "alarms" in row:
        figures["alarms"] = float(len(row["alarms"]))
    return figures


def _table(step: int, rollouts: Sequence[Mapping[str, Any]]) -> Any:
    import wandb

    further = sorted({name for row in rollouts for name in row["reward"].get("extra", {})})
    columns = [*COLUMNS, *(f"{name} score" for name in further)]
    return wandb.Table(columns=columns, data=[_cells(step, row, further) for row in rollouts])


def _cells(step: int, row: Mapping[str, Any], further: Sequence[str]) -> list[Any]:
    """Return one row of `trajectories.jsonl` as the columns of the table.

    Args:
        step: Its step.
        row: The row.
        further: Names of the further parts of the reward.
    """
    reward = row["reward"]
    transcript = row["opening"] + "".join(segment["text"] for segment in row["segments"])
    return [
        step,
        shorten(row["question"], _CELL),
        shorten(" | ".join(row["answers"]), _CELL),
        shorten(row["answer"] or "", _CELL),
        *(reward[part] for part in ("total", "answer", "plan", "format")),
        shorten("\n\n".join(_plan(round_) for round_ in row["rounds"]), _CELL),
        shorten(transcript, _CELL),
        *(reward["extra"].get(name) for name in further),
    ]


def _plan(round_: Mapping[str, Any]) -> str:
    """Return one search as lines: `A: query (Source)`, then `A -> B`, or its problems."""
    nodes = [f"{r['label']}: {r['query']} ({r['source']})" for r in round_["results"]]
    edges = [" -> ".join(edge) for edge in round_["edges"]]
    return "\n".join([*nodes, *edges, *(f"invalid: {p}" for p in round_["problems"])])


def _reason(error: Exception) -> str:
    """Return the message of a wandb exception on one line, without the key."""
    words = printable(" ".join(str(error).split())) or type(error).__name__
    return shorten(without_secrets(words, environment_with_login()), 200)
