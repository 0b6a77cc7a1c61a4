"""Checkpoints: sealed with digests when written, and verified before a run resumes from one.

A damaged checkpoint is renamed, never deleted and never loaded. A seal finds damage by a disk, a
copy or a person; a kill cannot leave half a checkpoint, see `RunFolder.staged`.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

from rsearch_cli.runs.files import DAMAGED, METRICS, SEAL
from rsearch_cli.runs.json_text import dump_json, read_json_object
from rsearch_cli.runs.run_folder import RunFolder, checkpoint_step

logger = logging.getLogger(__name__)


def seal_checkpoint(checkpoint: Path) -> None:
    """Write the size in bytes and the SHA-256 of every file of a checkpoint to its `SEAL`."""
    files = {
        path.relative_to(checkpoint).as_posix(): _describe(path)
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file()
    }
    (checkpoint / SEAL).write_text(dump_json({"files": files}, indent=2), encoding="utf-8")


def find_damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None if it matches its seal."""
    try:
        sealed = read_json_object(checkpoint / SEAL)["files"]
        for name, expected in sealed.items():
            path = checkpoint / name
            if not path.resolve().is_relative_to(checkpoint.resolve()):
                return f"{SEAL} names {name}, which is outside"
            if not path.is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != expected["bytes"]:
                return f"{name} has {size} bytes where {expected['bytes']} were written"
            if _describe(path) != expected:
                return f"{name} has other content than was written"
    except FileNotFoundError:
        return f"{SEAL} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read ({error})"
    return None


def choose_checkpoint(folder: RunFolder) -> Path | None:
    """Return the checkpoint that a run resumes from; None starts with the first step.

    It is the latest undamaged one whose steps all have a row in the metrics, so that the run ends
    as if it had not stopped. If there is none, it is the latest undamaged one. Later checkpoints
    are renamed, because their steps are repeated.
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
        logger.warning(f"{path.name} is not used: {reason}; renamed to {aside.name}")
    return chosen


def set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint so that it is not used; an earlier one of that name is removed."""
    aside = checkpoint.with_name(checkpoint.name + DAMAGED)
    if aside.exists():
        shutil.rmtree(aside)
    return checkpoint.rename(aside)


def drop_old_checkpoints(folder: RunFolder, keep: int) -> None:
    """Remove all checkpoints but the last `keep`, by step."""
    for path in folder.checkpoints()[:-keep]:
        folder.discard(path)


def _describe(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
