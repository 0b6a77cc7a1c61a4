"""Publish a run to the Hugging Face Hub: read the run, stage its files, scan them, upload."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import PublishError, RecipeError
from rsearch_cli.policy.loading import quieten_libraries
from rsearch_cli.publishing.base_model import locate_base, require_loadable
from rsearch_cli.publishing.facts import RunFacts, read_run
from rsearch_cli.publishing.secret_scan import scan_files
from rsearch_cli.publishing.staging import StagedRepository, check_request, stage
from rsearch_cli.publishing.upload import Target, check_access, check_id, find_token, upload
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.trust import is_own, refusal, take_harmless
from rsearch_cli.runs.files import PUSH, RECIPE
from rsearch_cli.runs.run_folder import RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PushReport:
    """What was published, or would be.

    Attributes:
        repo_id: `user/name`.
        staged: The files and the model card.
        url: URL of the repository; None after a dry run.
        commit: Commit id; None after a dry run.
        pr_url: URL of the pull request, if one was requested.
    """

    repo_id: str
    staged: StagedRepository
    url: str | None = None
    commit: str | None = None
    pr_url: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the report for `--json`; file sizes are in bytes."""
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


def publish(
    run: Path,
    repo: str | None = None,
    *,
    kinds: Collection[str] = ("adapter",),
    base_model: str | None = None,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
    trust_settings: bool = False,
    trust_remote_code: bool = False,
) -> PushReport:
    """Publish a run: stage its files, scan them for secrets, and upload them in one commit.

    The run folder is not changed, and a failed push can be repeated.

    Args:
        run: The run folder.
        repo: `user/name`; None takes the repository of the run's recipe.
        kinds: Some of `adapter`, `merged` and `gguf`.
        base_model: Hub id of a base that is a local folder; None takes the one in the recipe.
        private: Require a private repository.
        revision: Branch to push to; None is `main`.
        create_pr: Open a pull request instead of committing.
        dry_run: Do everything but the upload. Needs no token, and keeps the staged files.
        trust_settings: Let a run from another machine decide the repository and the local folder
            that its base is read from.
        trust_remote_code: Run code that ships with the base model.

    Raises:
        PublishError: Of the narrowest kind.
        RecipeError: The run is from another machine and needs `trust_settings`.
    """
    quieten_libraries()
    facts = read_run(RunFolder(run), trust_remote_code=trust_remote_code)
    if not (trust_settings or is_own(run / RECIPE)):
        _refuse_foreign(facts, run / RECIPE, repo)
    target = find_target(facts.recipe, repo, private, revision, create_pr)
    check_id(target.repo_id)
    base = locate_base(facts.recipe.policy, base_model or facts.recipe.hub.base_model)
    check_request(kinds, base)
    account = "" if dry_run else check_access(target.repo_id)
    staged = stage(facts, kinds, base, target.repo_id, run / PUSH)
    logger.info("scanning %d files for keys, local paths and pickles", len(staged.files))
    scan_files(staged.folder, list(staged.files), find_token(), target.repo_id.partition("/")[0])
    if dry_run:
        return PushReport(target.repo_id, staged)
    logger.info("uploading to %s", target.repo_id)
    done = upload(staged.folder, list(staged.files), target, account)
    shutil.rmtree(staged.folder)
    return PushReport(target.repo_id, staged, done.url, done.commit, done.pr_url)


def check_push(recipe: Recipe) -> None:
    """Before training: check that the push at the end of the run can work, if one is configured.

    Raises:
        PublishError: No token, a refused one, no connection, or a base that nobody else can load.
    """
    if recipe.hub.push:
        require_loadable(locate_base(recipe.policy, recipe.hub.base_model))
        check_access(find_target(recipe).repo_id)


def push_if_asked(recipe: Recipe, run: Path) -> None:
    """After training: publish the adapter if the recipe says so.

    Raises:
        PublishError: With the command that repeats the push; the run itself is complete.
    """
    if not recipe.hub.push:
        return
    try:
        report = publish(
            run, trust_settings=True, trust_remote_code=recipe.policy.trust_remote_code
        )
    except PublishError as error:
        raise type(error)(
            f"{error} (the run in {run} is complete; to publish it: rsearch push {run})"
        ) from error
    logger.info("pushed to %s", report.url)


def find_target(
    recipe: Recipe,
    repo: str | None = None,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
) -> Target:
    """Return where to publish.

    Raises:
        PublishError: Neither the caller nor the recipe names a repository.
    """
    if repo is None:
        repo, private = recipe.hub.model_id, private or recipe.hub.private
    if repo is None:
        raise PublishError(
            "no repository given and none in the run's recipe; add --hub-model-id USER/NAME"
        )
    return Target(repo, private, revision, create_pr)


def _refuse_foreign(run: RunFacts, recipe: Path, repo: str | None) -> None:
    """Refuse settings from another machine that decide what is read here or where it is sent.

    Raises:
        RecipeError: The recipe names the repository, or a local folder as the base model.
    """
    _, left = take_harmless(run.recipe.model_dump())
    decisive = ["policy.model"] if repo else ["policy.model", "hub.model_id"]
    if found := {key: left[key] for key in decisive if left.get(key) is not None}:
        raise RecipeError(refusal(str(recipe), found))
