"""The Hub: one commit that makes everything visible at once, and one clear line for each failure.

Place in the path: the last step of a push. Large files go up first and are found by their content,
so a push that was cut off sends on its next start only what is missing; until the commit at the
end nobody sees any of it. On failure: a `PublishError` of the narrowest kind; the client has by
then retried what may pass (429, 5xx, broken connections).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import (
    PublishConflict,
    PublishDenied,
    PublishError,
    PublishForbidden,
    PublishThrottled,
    PublishUnreachable,
)
from rsearch_cli.policy.resolve import MANIFEST
from rsearch_cli.services.http import check_proxies
from rsearch_cli.services.hub import TOKEN_VARIABLE
from rsearch_cli.services.keys import find_flaw, hide_secrets, read_key

MESSAGE = "Search agent trained with rsearch"
_WEIGHTS = (".safetensors", ".bin", ".gguf")


_ACCOUNT = re.compile(r"[\w.-]{1,96}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a push goes.

    Attributes:
        repo_id: `user/name`.
        private: Whether the repository must be private.
        revision: Branch; None is `main`.
        create_pr: Open a pull request instead of committing.
    """

    repo_id: str
    private: bool = False
    revision: str | None = None
    create_pr: bool = False


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of a push.

    Attributes:
        url: Of the repository.
        commit: The commit's id.
        pr_url: Of the pull request, if one was asked for.
    """

    url: str
    commit: str
    pr_url: str | None


def find_token() -> str | None:
    """The Hub token of the environment, as it stands there, or of `hf auth login`."""
    from huggingface_hub import get_token

    return read_key(TOKEN_VARIABLE) or get_token() or None


def check_id(repo_id: str) -> None:
    """See that a repository can have this id.

    Raises:
        PublishError: It cannot.
    """
    with clear_errors(repo_id, "checking the id"):
        from huggingface_hub.utils import validate_repo_id

        validate_repo_id(repo_id)


def check_access(repo_id: str) -> str:
    """See that the id is possible and the Hub knows the token, before anything slow starts.

    Returns:
        The account's name.

    Raises:
        PublishError: Of the narrowest kind.
    """
    check_id(repo_id)
    check_proxies()
    token = find_token()
    if token is None:
        raise PublishDenied(
            "there is no Hub token; set HF_TOKEN to one with write access "
            "(https://huggingface.co/settings/tokens), or run: hf auth login"
        )
    if (flaw := find_flaw(TOKEN_VARIABLE, token)) is not None:
        raise PublishDenied(flaw)
    with clear_errors(repo_id, "signing in"):
        from huggingface_hub import HfApi

        account = HfApi().whoami()["name"]
        if not isinstance(account, str) or not _ACCOUNT.fullmatch(account):
            raise ValueError("it names no account")
        return account


def upload(folder: Path, files: Sequence[str], target: Target, account: str) -> Pushed:
    """Upload the files and make them visible in one commit.

    Files that an earlier push of rsearch put there and this one does not have are removed by the
    same commit. A pull request of ours that is still open is added to, not opened twice.

    Args:
        folder: Where the files lie.
        files: Their paths, the same in the repository.
        target: Where to.
        account: Name of the account that pushes.

    Raises:
        PublishError: Of the narrowest kind; nothing is visible then.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api, repo = HfApi(), target.repo_id
    with clear_errors(repo, "making the repository"):
        url = str(api.create_repo(repo, private=target.private or None, exist_ok=True))
        if target.private and not api.model_info(repo).private:
            raise PublishConflict(
                f"{repo} already exists and everybody can read it; make it private in its settings "
                "on the Hub, or leave --private out"
            )
    with clear_errors(repo, "looking at what is there"):
        if target.revision:
            api.create_branch(repo, branch=target.revision, exist_ok=True)
        open_pr = _open_pull_request(api, repo, account) if target.create_pr else None
        revision = open_pr or target.revision
        there = set(api.list_repo_files(repo, revision=revision))
        stale = _stale_files(api, repo, revision, there, files, recovery=not target.create_pr)
    operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in files]
    operations += [CommitOperationDelete(name) for name in stale]
    with clear_errors(repo, "uploading"):
        done = api.create_commit(
            repo,
            operations,
            commit_message=MESSAGE,
            revision=revision,
            create_pr=target.create_pr and open_pr is None,
        )
    pr_url = done.pr_url or (f"{url}/discussions/{open_pr.rpartition('/')[2]}" if open_pr else None)
    return Pushed(url, str(done.oid), pr_url)


def _open_pull_request(api: Any, repo: str, account: str) -> str | None:
    """Git reference of a pull request that an earlier push of this account left open, or None."""
    ours = api.get_repo_discussions(
        repo, author=account, discussion_type="pull_request", discussion_status="open"
    )
    numbers = [d.num for d in ours if d.title == MESSAGE and d.author == account]
    return f"refs/pr/{max(numbers)}" if numbers else None


def _stale_files(
    api: Any, repo: str, revision: str | None, there: set[str], files: Sequence[str], recovery: bool
) -> list[str]:
    """What an earlier push left and this one does not replace.

    Raises:
        PublishConflict: With `recovery`, if there are weights that no push of rsearch put there.
    """
    earlier: set[str] = set()
    if MANIFEST in there:
        path = api.hf_hub_download(repo, MANIFEST, revision=revision)
        earlier = set(json.loads(Path(path).read_text(encoding="utf-8"))["files"])
    foreign = sorted(n for n in there - earlier if n.endswith(_WEIGHTS))
    if recovery and foreign:
        raise PublishConflict(
            f"{repo} already holds weights that rsearch did not push, such as {foreign[0]}; choose "
            "another --hub-model-id, or propose the change with --create-pr"
        )
    return sorted((earlier & there) - set(files))


@contextmanager
def clear_errors(repo_id: str, doing: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one clear line of the narrowest kind."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except PublishError:
        raise
    except HFValidationError as error:
        raise PublishError(f"{repo_id!r} is no repository id: {_first_line(error)}") from error
    except OfflineModeIsEnabled as error:
        raise PublishUnreachable(
            "the Hub's client is offline, so nothing can be pushed: HF_HUB_OFFLINE is set, or the "
            "Hub could not be reached before; mend that and push again"
        ) from error
    # The last four are what the client ends in where an answer is not what it should be.
    except (
        *(OSError, ValueError, RuntimeError, httpx.HTTPError, httpx.InvalidURL),
        *(LookupError, TypeError, AttributeError, OverflowError),
    ) as error:
        # The client wraps what went wrong with one of several files.
        cause: BaseException = error
        while not isinstance(cause, HfHubHTTPError | httpx.TransportError) and cause.__cause__:
            cause = cause.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise _from_status(cause, repo_id, doing) from error
        if isinstance(cause, httpx.TransportError | ConnectionError | TimeoutError):
            raise PublishUnreachable(
                f"the connection to the Hub failed while {doing} ({repo_id}): "
                f"{_first_line(cause)}; push again, what has arrived is not sent twice"
            ) from error
        raise PublishError(f"{doing} ({repo_id}) failed: {_first_line(error)}") from error


def _from_status(error: Any, repo_id: str, doing: str) -> PublishError:
    status = error.response.status_code
    said = error.server_message or error.response.headers.get("X-Error-Message")
    said = f": {hide_secrets(' '.join(said.split()))}" if said else ""
    head = f"the Hub answered {status} while {doing} ({repo_id}){said}"
    if status == 401:
        return PublishDenied(
            f"{head}; the token is wrong or has expired, make one with write access at "
            "https://huggingface.co/settings/tokens and set HF_TOKEN"
        )
    if status == 403:
        return PublishForbidden(
            f"{head}; the token needs write access to it, or choose a --hub-model-id of your own"
        )
    if status in (409, 412):
        return PublishConflict(f"{head}; somebody changed it at the same time, push again")
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        after = f" in {wait} s" if wait else " in a few minutes"
        return PublishThrottled(f"{head}; push again{after}, what has arrived is not sent twice")
    return PublishError(f"{head}; push again, what has arrived is not sent twice")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
