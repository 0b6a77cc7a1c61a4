"""The course of a push, from the run folder to the commit.

Place in the path: the body of `rsearch push`, and the last step of a training run that asks for it.
What can be refused at once (no adapter, no token, a base nobody can load, no converter) is refused
before weights are merged; files are checked before the first byte leaves. On failure: a
`PublishError` of the narrowest kind; the run folder stays as it is, and the push can be repeated.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import (
    NothingToPush,
    PolicyError,
    PublishError,
    PublishUnsafe,
    RecipeError,
    RunFolderError,
)
from rsearch_cli.policy.adapter import read_adapter
from rsearch_cli.policy.loading import quieten_libraries
from rsearch_cli.publish.base import locate_base, require_loadable
from rsearch_cli.publish.hub import Target, check_access, check_id, find_token, upload
from rsearch_cli.publish.record import RunRecord
from rsearch_cli.publish.scan import scan_files
from rsearch_cli.publish.staging import Staged, check_request, stage
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.trust import is_own, refusal, take_harmless
from rsearch_cli.runs.confined_paths import refuse_escapes
from rsearch_cli.runs.files import (
    ADAPTER,
    ENVIRONMENT,
    METRICS,
    PREDICTIONS,
    PUSH,
    RECIPE,
    SUMMARY,
    TRAJECTORIES,
)
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.services.budget import Budget
from rsearch_cli.workflows.train_setup import say


@dataclass(frozen=True, slots=True)
class PushReport:
    """What was pushed, or would be.

    Attributes:
        repo_id: `user/name`.
        staged: The files and the card.
        url: Of the repository; None after a dry run.
        commit: The commit's id; None after a dry run.
        pr_url: Of the pull request, if one was asked for.
    """

    repo_id: str
    staged: Staged
    url: str | None = None
    commit: str | None = None
    pr_url: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For `--json`: repository, commit, files with their sizes in bytes, checks and card."""
        staged = self.staged
        return {
            "repo_id": self.repo_id,
            "url": self.url,
            "commit": self.commit,
            "pr_url": self.pr_url,
            "files": staged.files,
            "merge": asdict(staged.merge) if staged.merge else None,
            "card": staged.card,
        }


def push_run(
    path: Path,
    target: Target | None = None,
    kinds: Collection[str] = ("adapter",),
    *,
    base_model: str | None = None,
    dry_run: bool = False,
    trust_settings: bool = False,
    trust_remote_code: bool = False,
) -> PushReport:
    """Stage, check and upload a run.

    Args:
        path: The run folder.
        target: Where to; None takes what the run's own recipe says.
        kinds: Some of `adapter`, `merged` and `gguf`.
        base_model: Hub id of the base, where the run took it from a folder; None takes the one in
            the recipe.
        dry_run: Do all of it but the upload; no token is needed, and the files stay to be seen.
        trust_settings: Let a run that was not made here say where it is pushed to, and which
            folder of this machine its base is.
        trust_remote_code: Run code that comes with the base.

    Raises:
        PublishError: Of the narrowest kind.
        RecipeError: The run was not made here, and its base is a folder of this machine.
    """
    quieten_libraries()
    record = read_record(RunFolder(path), trust_remote_code=trust_remote_code)
    if not (trust_settings or is_own(path / RECIPE)):
        _refuse_foreign(record, path / RECIPE, target)
    target = target or own_target(record.recipe)
    check_id(target.repo_id)
    base = locate_base(record.recipe.policy, base_model or record.recipe.hub.base_model)
    check_request(kinds, base)
    account = "" if dry_run else check_access(target.repo_id)
    staged = stage(record, kinds, base, target.repo_id, path / PUSH, say)
    say(f"looking through {len(staged.files)} files for keys, paths and pickles")
    scan_files(staged.folder, list(staged.files), find_token(), target.repo_id.partition("/")[0])
    if dry_run:
        return PushReport(target.repo_id, staged)
    say(f"uploading to {target.repo_id}")
    pushed = upload(staged.folder, list(staged.files), target, account)
    shutil.rmtree(staged.folder)
    return PushReport(target.repo_id, staged, pushed.url, pushed.commit, pushed.pr_url)


def check_push(recipe: Recipe) -> None:
    """Before training: see that the push at its end has a chance; nothing to do without one.

    Raises:
        PublishError: No token, a refused one, no connection, or a base that nobody could load.
    """
    if recipe.hub.push:
        require_loadable(locate_base(recipe.policy, recipe.hub.base_model))
        check_access(own_target(recipe).repo_id)


def push_if_asked(recipe: Recipe, path: Path) -> None:
    """After training: push the adapter if the recipe says so.

    Raises:
        PublishError: With the command that repeats it; the run folder is whole.
    """
    if not recipe.hub.push:
        return
    try:
        report = push_run(
            path, trust_settings=True, trust_remote_code=recipe.policy.trust_remote_code
        )
    except PublishError as error:
        raise type(error)(
            f"{error} (the run in {path} is complete; to push it: rsearch push {path})"
        ) from error
    say(f"pushed to {report.url}")


def own_target(recipe: Recipe) -> Target:
    """Where the run's own recipe sends it.

    Raises:
        PublishError: It does not say.
    """
    if recipe.hub.model_id is None:
        raise PublishError("where to? Give --hub-model-id USER/NAME")
    return Target(recipe.hub.model_id, private=recipe.hub.private)


def read_record(folder: RunFolder, *, trust_remote_code: bool = False) -> RunRecord:
    """Read a run folder into what it proves.

    Raises:
        NothingToPush: It holds no run, or one without a trained adapter.
        PublishUnsafe: A link leads out of it, or the adapter is broken.
        RecipeError: Its recipe cannot be read.
    """
    try:
        refuse_escapes(folder.path)
    except RunFolderError as error:
        raise PublishUnsafe(str(error)) from error
    if not folder.holds_run:
        raise NothingToPush(
            f"{folder.path} holds no run; give the folder that `rsearch train` wrote"
        )
    if not (folder.adapter / "adapter_config.json").is_file():
        raise NothingToPush(
            f"{folder.path} holds no {ADAPTER}/: the run has not reached its last step; go on "
            f"with it: rsearch train --recipe {folder.path / RECIPE} --resume"
        )
    asked = f"{PREDICTIONS}/after-greedy.jsonl"
    with folder.reading(asked):
        evaluated = [str(row["text"]) for row in folder.read_rows(asked)]
    with folder.reading(TRAJECTORIES):
        trained = [str(row["question"]) for row in folder.read_rows(TRAJECTORIES)]
    # Facts about the run are taken from it whoever made it; what is done with them, see `push_run`.
    recipe = load_recipe(str(folder.path / RECIPE), trusted=True).recipe
    policy = recipe.policy.model_copy(update={"trust_remote_code": trust_remote_code})
    try:
        weights = read_adapter(folder.adapter)
    except PolicyError as error:
        raise PublishUnsafe(f"{error}; train again, or push a whole copy of the run") from error
    return RunRecord(
        folder=folder.path,
        recipe=recipe.model_copy(update={"policy": policy}),
        environment=_read_json(folder, ENVIRONMENT),
        summary=_read_json(folder, SUMMARY),
        rows=folder.read_rows(METRICS),
        questions=list(dict.fromkeys([*evaluated, *trained])),
        services=Budget(folder.path).snapshot().services,
        weights=weights,
    )


def _refuse_foreign(record: RunRecord, recipe: Path, target: Target | None) -> None:
    """Refuse what the recipe of a run that was not made here would decide about a push.

    Raises:
        RecipeError: It says where to push to, or names a folder of this machine as the base.
    """
    _, left = take_harmless(record.recipe.model_dump())
    decisive = ["policy.model"] if target else ["policy.model", "hub.model_id"]
    if found := {key: left[key] for key in decisive if left.get(key) is not None}:
        raise RecipeError(refusal(str(recipe), found))


def _read_json(folder: RunFolder, name: str) -> dict[str, Any]:
    """A JSON file of the run; {} if the run did not come to write it."""
    if not (folder.path / name).exists():
        return {}
    with folder.reading(name):
        return dict(folder.read_json(name))
