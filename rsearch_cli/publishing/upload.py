"""Upload to the Hub in a single commit.

Large files are uploaded first and addressed by content, so a repeated push sends only what is
missing, and nothing is visible before the commit. The Hub's client retries 429, 5xx and broken
connections; whatever remains becomes a `PublishError`.
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
    first_line,
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
    """Where to publish.

    Attributes:
        repo_id: `user/name`.
        private: Whether the repository has to be private.
        revision: Branch; None is `main`.
        create_pr: Open a pull request instead of committing.
    """

    repo_id: str
    private: bool = False
    revision: str | None = None
    create_pr: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    """A completed upload.

    Attributes:
        url: URL of the repository.
        commit: Commit id.
        pr_url: URL of the pull request, if one was requested.
    """

    url: str
    commit: str
    pr_url: str | None


def find_token() -> str | None:
    """Return the Hub token from the environment, verbatim, or from `hf auth login`."""
    from huggingface_hub import get_token

    return read_key(TOKEN_VARIABLE) or get_token() or None


def check_id(repo_id: str) -> None:
    """Check that a repository id is well-formed.

    Raises:
        PublishError: It is not.
    """
    with _clear_errors(repo_id, "checking the id"):
        from huggingface_hub.utils import validate_repo_id

        validate_repo_id(repo_id)


def check_access(repo_id: str) -> str:
    """Check the repository id and sign in to the Hub.

    Returns:
        Name of the account.

    Raises:
        PublishError: The id is malformed, there is no token, or the Hub refuses it.
    """
    check_id(repo_id)
    check_proxies()
    token = find_token()
    if token is None:
        raise PublishDenied(
            "no Hub token found; set HF_TOKEN to one with write access "
            "(https://huggingface.co/settings/tokens), or run: hf auth login"
        )
    if (flaw := find_flaw(TOKEN_VARIABLE, token)) is not None:
        raise PublishDenied(flaw)
    with _clear_errors(repo_id, "signing in"):
        from huggingface_hub import HfApi

        account = HfApi().whoami()["name"]
        if not isinstance(account, str) or not _ACCOUNT.fullmatch(account):
            raise ValueError("the answer names no account")
        return account


def upload(folder: Path, files: Sequence[str], target: Target, account: str) -> Upload:
    """Upload files in one commit.

    The commit also deletes files of an earlier rsearch push that this one does not contain. If an
    earlier push opened a pull request that is still open, the commit is added to it.

    Args:
        folder: Folder of the files.
        files: Their relative paths, which are also their paths in the repository.
        target: Where to publish.
        account: Name of the account that publishes.

    Raises:
        PublishError: The upload failed and nothing is visible.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api, repo = HfApi(), target.repo_id
    with _clear_errors(repo, "creating the repository"):
        url = str(api.create_repo(repo, private=target.private or None, exist_ok=True))
        if target.private and not api.model_info(repo).private:
            raise PublishConflict(
                f"{repo} already exists and is public; make it private in its settings on the Hub, "
                "or omit --private"
            )
    with _clear_errors(repo, "listing the repository"):
        if target.revision:
            api.create_branch(repo, branch=target.revision, exist_ok=True)
        open_pr = _open_pull_request(api, repo, account) if target.create_pr else None
        revision = open_pr or target.revision
        existing = set(api.list_repo_files(repo, revision=revision))
        stale = _stale_files(api, repo, revision, existing, files, protect=not target.create_pr)
    operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in files]
    operations += [CommitOperationDelete(name) for name in stale]
    with _clear_errors(repo, "uploading"):
        done = api.create_commit(
            repo,
            operations,
            commit_message=MESSAGE,
            revision=revision,
            create_pr=target.create_pr and open_pr is None,
        )
    pr_url = done.pr_url or (f"{url}/discussions/{open_pr.rpartition('/')[2]}" if open_pr else None)
    return Upload(url, str(done.oid), pr_url)


def _open_pull_request(api: Any, repo: str, account: str) -> str | None:
    """Return the Git reference of an open pull request from an earlier push, or None."""
    ours = api.get_repo_discussions(
        repo, author=account, discussion_type="pull_request", discussion_status="open"
    )
    numbers = [d.num for d in ours if d.title == MESSAGE and d.author == account]
    return f"refs/pr/{max(numbers)}" if numbers else None


def _stale_files(
    api: Any,
    repo: str,
    revision: str | None,
    existing: set[str],
    files: Sequence[str],
    protect: bool,
) -> list[str]:
    """Return the files of an earlier push that this one does not replace.

    Args:
        api: The Hub's client.
        repo: `user/name`.
        revision: Branch or reference.
        existing: Files in the repository.
        files: Files to be uploaded.
        protect: Whether to refuse a repository with weights that rsearch did not push.

    Raises:
        PublishConflict: The repository contains such weights.
    """
    earlier: set[str] = set()
    if MANIFEST in existing:
        path = api.hf_hub_download(repo, MANIFEST, revision=revision)
        earlier = set(json.loads(Path(path).read_text(encoding="utf-8"))["files"])
    foreign = sorted(n for n in existing - earlier if n.endswith(_WEIGHTS))
    if protect and foreign:
        raise PublishConflict(
            f"{repo} already contains weights that rsearch did not push, such as {foreign[0]}; "
            "choose another --hub-model-id, or open a pull request with --create-pr"
        )
    return sorted((earlier & existing) - set(files))


@contextmanager
def _clear_errors(repo_id: str, doing: str) -> Iterator[None]:
    """Turn the exceptions of the Hub's client into a `PublishError` of the narrowest kind."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except PublishError:
        raise
    except HFValidationError as error:
        raise PublishError(
            f"{repo_id!r} is not a valid repository id: {first_line(error)}"
        ) from error
    except OfflineModeIsEnabled as error:
        raise PublishUnreachable(
            "the Hub's client is in offline mode: HF_HUB_OFFLINE is set, or the Hub was "
            "unreachable earlier; fix that and push again"
        ) from error
    except Exception as error:  # the client raises anything on malformed answers
        # With several files, the client wraps the original exception.
        cause: BaseException = error
        while not isinstance(cause, HfHubHTTPError | httpx.TransportError) and cause.__cause__:
            cause = cause.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise _from_status(cause, repo_id, doing) from error
        if isinstance(cause, httpx.TransportError | ConnectionError | TimeoutError):
            raise PublishUnreachable(
                f"the connection to the Hub failed while {doing} ({repo_id}): "
                f"{first_line(cause)}; push again, uploaded files are not sent twice"
            ) from error
        raise PublishError(f"{doing} ({repo_id}) failed: {first_line(error)}") from error


def _from_status(error: Any, repo_id: str, doing: str) -> PublishError:
    status = error.response.status_code
    message = error.server_message or error.response.headers.get("X-Error-Message")
    message = f": {hide_secrets(' '.join(message.split()))}" if message else ""
    head = f"the Hub answered {status} while {doing} ({repo_id}){message}"
    if status == 401:
        return PublishDenied(
            f"{head}; the token is invalid or expired; create one with write access at "
            "https://huggingface.co/settings/tokens and set HF_TOKEN"
        )
    if status == 403:
        return PublishForbidden(
            f"{head}; the token needs write access to this repository, or choose another "
            "--hub-model-id"
        )
    if status in (409, 412):
        return PublishConflict(f"{head}; the repository was changed at the same time, push again")
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        after = f"in {wait} s" if wait else "in a few minutes"
        return PublishThrottled(f"{head}; push again {after}, uploaded files are not sent twice")
    return PublishError(f"{head}; push again, uploaded files are not sent twice")
