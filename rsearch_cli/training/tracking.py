"""Tracking a run with Weights & Biases: curves, spend, trajectories and the recipe.

Place in the path: fed by training's callbacks beside the display; nothing reads it back, and the
run folder holds all that is sent. On failure: tracking never stops a run. A W&B that cannot be
reached, or refuses the key, costs `wandb.timeout_seconds` and one line at the start, and the run is
tracked offline from there. Later it costs no step anything, and as long again at the end;
anything that is raised ends tracking with one line.

W&B is told to keep its hands off the rest: the console (its capture would break our display), git,
code, requirements, machine and command line. The key stays in the environment or in ~/.netrc;
WANDB_MODE may ask for less than the recipe does.
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
# Characters of one cell; trajectories.jsonl has the rest.
_CELL = 4000

Mode = Literal["online", "offline"]


class Tracker:
    """One tracked run; without one, every method does nothing.

    A thread of its own talks to wandb: a table makes it wait for its server, however long that may
    take, and no step waits for that.

    Args:
        settings: The recipe's `wandb` section.
        folder: Where wandb's own files lie.
        run: The run as wandb gave it, or None.
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
        """Send a finished step, and every few steps some of its trajectories with their plans.

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
        """Send the outcome of the run: the figures before and after, and their difference."""
        figures = {
            f"{block}/{key}": value
            for block in ("before", "after", "difference")
            for key, value in _figures(summary[block]).items()
        }
        self._add(lambda: self._run.summary.update(figures))

    def close(self, exit_code: int) -> None:
        """Let wandb send what is left, for a bounded time."""
        if self._run is None:
            return
        self._add(lambda: self._run.finish(exit_code=exit_code))
        self._add(None)
        self._thread.join(self._settings.timeout_seconds)
        if self._thread.is_alive():
            logger.warning("W&B: it does not answer; what it did not get is in metrics.jsonl")
        self._closed = True
        with suppress(OSError):
            clean_logs(self._folder)

    def _add(self, job: Callable[[], None] | None) -> None:
        if self._thread.is_alive():
            self._jobs.put(job)

    def _work(self) -> None:
        """Do one job after the other, up to the first that fails."""
        while job := self._jobs.get():
            try:
                job()
            except Exception as error:
                if not self._closed:
                    logger.warning(f"W&B: tracking ends here, the run goes on: {_reason(error)}")
                return

    def _log(
        self,
        step: int,
        figures: dict[str, float],
        rollouts: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        # A resumed run repeats the steps since its checkpoint, and W&B has them already.
        if step >= self._run.step:
            table = {"trajectories": _table(step, rollouts)} if rollouts else {}
            self._run.log({**figures, **table}, step=step)


@contextmanager
def open_tracker(recipe: Recipe, folder: RunFolder) -> Iterator[Tracker]:
    """Track a run for as long as the block lasts; a resumed one goes on where it was.

    Args:
        recipe: All of it is sent but secrets; its `wandb` section is read.
        folder: Keeps the id of the run, and W&B's own files.
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
    """A wandb run, online if that is wanted and possible; None if there is none to be had."""
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

                wandb.teardown()  # it would take the id for one in use
                clean_logs(folder)
        return _init(recipe, folder, "offline")
    except Exception as error:
        logger.warning(f"W&B: the run is not tracked: {_reason(error)}")
        return None


def _choose_mode(wanted: Mode) -> Mode | Literal["disabled"]:
    """The recipe's mode, unless the environment wants less to be sent."""
    given = os.environ.get(MODE_VARIABLE, "").strip().lower()
    if given == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
        logger.warning("W&B: disabled by the environment; the run is not tracked")
        return "disabled"
    if given in ("", "online", "run", "shared"):  # run and dryrun are older names
        return wanted
    if given in ("offline", "dryrun"):
        return "offline"
    logger.warning(
        f"W&B: {MODE_VARIABLE} is {given!r}, not online, offline or disabled; nothing is tracked"
    )
    return "disabled"


def _init(recipe: Recipe, folder: RunFolder, mode: Mode) -> Any:
    # Read as wandb is imported; without it, wandb reports its own errors to its makers.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    seconds = recipe.wandb.timeout_seconds
    # Logging in prints a line, and takes its settings from here.
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
    """The id of the run in W&B, the same one after a resume."""
    path = folder.path / WANDB_RUN
    if path.exists():
        with folder.reading(WANDB_RUN):
            return str(folder.read_json(WANDB_RUN)["id"])
    chosen = secrets.token_hex(4)
    folder.write_json(WANDB_RUN, {"id": chosen})
    return chosen


def clean_logs(folder: RunFolder) -> None:
    """Take secrets out of wandb's own logs, where they come from answers that repeat the key."""
    for path in (folder.path / WANDB).rglob("*.log"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if (clean := without_secrets(text, environment_with_login())) != text:
            path.write_text(clean, encoding="utf-8")


def without_secrets(value: Any, environment: Mapping[str, str]) -> Any:
    """A JSON value with every secret of the environment in its texts replaced by `***`.

    Args:
        value: Mappings, lists, texts and numbers.
        environment: Variables; those named like a key or a token hold the secrets.
    """
    if isinstance(value, Mapping):
        return {key: without_secrets(inner, environment) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner, environment) for inner in value]
    if isinstance(value, str):
        return hide_secrets(value, find_secrets(environment))
    return value


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row; alarms become how many stand."""
    figures = {key: number for key in row if (number := finite(row, key)) is not None}
    if "alarms" in row:
        figures["alarms"] = float(len(row["alarms"]))
    return figures


def _table(step: int, rollouts: Sequence[Mapping[str, Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(COLUMNS), data=[_cells(step, row) for row in rollouts])


def _cells(step: int, row: Mapping[str, Any]) -> list[Any]:
    """One row of `trajectories.jsonl` as the columns of the table."""
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
    ]


def _plan(round_: Mapping[str, Any]) -> str:
    """One search of a trajectory as lines: `A: query (Source)`, then `A -> B`, or its problems."""
    nodes = [f"{r['label']}: {r['query']} ({r['source']})" for r in round_["results"]]
    edges = [" -> ".join(edge) for edge in round_["edges"]]
    return "\n".join([*nodes, *edges, *(f"invalid: {p}" for p in round_["problems"])])


def _reason(error: Exception) -> str:
    """What an exception of wandb says, in one line without the key."""
    words = printable(" ".join(str(error).split())) or type(error).__name__
    return shorten(without_secrets(words, environment_with_login()), 200)
