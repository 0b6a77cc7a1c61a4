"""Checkpoints: sealed when they are whole, and checked before a run goes on from one.

Place in the path: train seals a checkpoint between TRL's writing it and its getting its name, and
asks here for the one to resume from. On failure: a checkpoint that is not what its seal says is set
aside under another name, never deleted and never loaded, and the one before is taken. A seal finds
what a disk, a copy or a person did to a checkpoint; a kill cannot leave half of one, see
`RunFolder.staged`.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

from rsearch_cli.runs.files import METRICS
from rsearch_cli.runs.json_text import dump_json, read_json_object
from rsearch_cli.runs.run_folder import RunFolder, checkpoint_step

logger = logging.getLogger(__name__)

SEAL = "seal.json"
"""Name of the file in a checkpoint that holds the size and digest of every other."""

_SET_ASIDE = ".damaged"


def seal_checkpoint(checkpoint: Path) -> None:
    """Note the size in bytes and the SHA-256 of every file of a checkpoint in it."""
    files = {
        path.relative_to(checkpoint).as_posix(): _describe(path)
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file()
    }
    (checkpoint / SEAL).write_text(dump_json({"files": files}, indent=2), encoding="utf-8")


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if it is as it was sealed."""
    try:
        sealed = read_json_object(checkpoint / SEAL)["files"]
        for name, expected in sealed.items():
            path = checkpoint / name
            if not path.resolve().is_relative_to(checkpoint.resolve()):
                return f"{SEAL} names {name}, which lies outside"
            if not path.is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != expected["bytes"]:
                return f"{name} has {size} bytes where {expected['bytes']} were written"
            if _describe(path) != expected:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"{SEAL} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read ({error})"
    return None


def choose_checkpoint(folder: RunFolder) -> Path | None:
    """The checkpoint that a resumed run goes on from; None starts with the first step.

    It is the latest whole one whose steps all have their row in the metrics, so that the run ends
    as if it had not stopped; where no checkpoint has them, weights count for more than rows. Later
    ones are set aside, for the steps that they stand for come again.

    Args:
        folder: Of the run.
    """
    rows = folder.read_rows(METRICS)
    with folder.reading(METRICS):
        measured = int(rows[-1]["step"]) if rows else 0
    damage = {path: find_damage(path) for path in reversed(folder.checkpoints())}
    whole = [path for path in damage if damage[path] is None]
    covered = (path for path in whole if checkpoint_step(path) <= measured)
    chosen = next(covered, whole[0] if whole else None)
    for path, problem in damage.items():
        if path == chosen:
            break
        aside = set_aside(path)
        reason = problem or f"{METRICS} ends at step {measured}"
        logger.warning(f"{path.name} is not used, {reason}; it is now {aside.name}")
    return chosen


def set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint so that nothing takes it for one; an earlier namesake goes."""
    aside = checkpoint.with_name(checkpoint.name + _SET_ASIDE)
    if aside.exists():
        shutil.rmtree(aside)
    return checkpoint.rename(aside)


def drop_old_checkpoints(folder: RunFolder, keep: int) -> None:
    """Remove all but the last `keep` checkpoints, by step."""
    for path in folder.checkpoints()[:-keep]:
        folder.discard(path)


def _describe(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
