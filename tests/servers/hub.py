"""A local server that speaks the Hugging Face Hub's HTTP API, with repositories in memory.

For the real `huggingface_hub` client (`HF_ENDPOINT`, and `HF_HUB_DISABLE_XET=1`, because Xet's
storage servers are not included). Files are uploaded as on the Hub: small text in the commit, the
rest by LFS, addressed by content. A commit of content that was never uploaded is refused. Standard
library only.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from hub_repository import (
    LFS_SUFFIXES,
    Refusal,
    Repo,
    describe_file,
    find_metadata_errors,
    git_hash,
    sha256,
)
from threaded import HTTPServer

TOKEN = "hf_" + "t" * 34
"""The token that the server takes: it looks like a real one."""
ACCOUNT = "me"

_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


class HubServer:
    """The Hub on the loopback address.

    Attributes:
        repos: What there is.
        blobs: LFS content by its SHA-256.
        requests: `(method, path)` of all requests.
        uploads: SHA-256 of each LFS upload that arrived whole.
        fault: Asked for each request with method and path; gives a status to answer with, `cut` to
            close the connection at once, `lose` to do it but never answer, or None.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.uploads: list[str] = []
        self.fault: Callable[[str, str], int | str | None] = lambda method, path: None
        self.lock = threading.Lock()
        self._server = HTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """What `HF_ENDPOINT` must be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def repo(self, name: str) -> Repo:
        """A repository, or the Hub's 404."""
        if name not in self.repos:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return self.repos[name]

    def snapshot(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        """Commit and files of a revision, or the Hub's 404."""
        repo = self.repo(name)
        commit = repo.find(unquote(revision))
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit, repo.commits[commit]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        with self.hub.lock:
            self.hub.requests.append((self.command, parts.path))
            fault = self.hub.fault(self.command, parts.path)
        if fault == "cut":
            self.close_connection = True
            self.connection.close()
            return
        self.body = self._read_body()
        try:
            if isinstance(fault, int):
                raise Refusal(fault, f"fault {fault}")
            if parts.path.startswith("/api/") and not self._knows_token():
                raise Refusal(401, "Invalid credentials in Authorization header")
            with self.hub.lock:
                answer = self._route(parts.path)
        except Refusal as refusal:
            headers = {"X-Error-Message": str(refusal), "X-Error-Code": refusal.code}
            self._send(refusal.status, {"error": str(refusal), **refusal.fields}, headers)
            return
        if fault == "lose":
            self.close_connection = True
            self.connection.close()
        elif isinstance(answer, tuple):
            self._send(200, *answer)
        else:
            self._send(200, answer)

    do_GET = do_POST = do_PUT = do_HEAD = _serve

    def _knows_token(self) -> bool:
        given = self.headers.get("Authorization")
        return given in (None, f"Bearer {TOKEN}") and (given is not None or self.command != "POST")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _route(self, path: str) -> Any:
        for method, pattern, answer in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method:
                return answer(self, **found.groupdict())
        raise Refusal(404, f"no endpoint {self.command} {path}")

    def whoami(self) -> Any:
        return {"type": "user", "name": ACCOUNT, "orgs": [], "auth": {"type": "access_token"}}

    def create_repo(self) -> Any:
        asked = json.loads(self.body)
        owner = asked["organization"] or ACCOUNT
        name = f"{owner}/{asked['name']}"
        if owner != ACCOUNT:
            raise Refusal(403, f"You don't have the rights to create a model under {owner}")
        if name in self.hub.repos:
            url = f"{self.hub.url}/{name}"
            raise Refusal(409, "You already created this model repo", url=url)
        repo = self.hub.repos[name] = Repo(private=asked.get("visibility") == "private")
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return {"url": f"{self.hub.url}/{name}", "name": name}

    def model_info(self, repo: str, revision: str = "main") -> Any:
        commit, files = self.hub.snapshot(repo, revision)
        siblings = [{"rfilename": name} for name in sorted(files)]
        private = self.hub.repos[repo].private
        return {"id": repo, "sha": commit, "private": private, "siblings": siblings, "tags": []}

    def tree(self, repo: str, revision: str) -> Any:
        _, files = self.hub.snapshot(repo, revision)
        return [describe_file(name, data) for name, data in sorted(files.items())]

    def preupload(self, repo: str, revision: str) -> Any:
        _, files = self.hub.snapshot(repo, revision)
        answers = []
        for asked in json.loads(self.body)["files"]:
            name = asked["path"]
            lfs = name.endswith(LFS_SUFFIXES)
            known = files.get(name)
            oid = None if known is None else (sha256(known) if lfs else git_hash(known))
            mode = "lfs" if lfs else "regular"
            answers.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answers}

    def lfs_batch(self, repo: str) -> Any:
        self.hub.repo(repo)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.blobs:
                links = {
                    "upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"},
                    "verify": {"href": f"{self.hub.url}/lfs-verify"},
                }
                entry["actions"] = links
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    def lfs_upload(self, oid: str) -> Any:
        if sha256(self.body) != oid:
            raise Refusal(400, "content does not match its name")
        self.hub.blobs[oid] = self.body
        self.hub.uploads.append(oid)
        return {}

    def lfs_verify(self) -> Any:
        asked = json.loads(self.body)
        if len(self.hub.blobs.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(404, "content did not arrive")
        return {}

    def commit(self, repo: str, revision: str) -> Any:
        at = self.hub.repo(repo)
        revision = unquote(revision)
        files = dict(self.hub.snapshot(repo, revision)[1])
        summary = ""
        for line in self.body.splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "header":
                summary = value["summary"]
            elif step["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    raise Refusal(400, f"the content of {value['path']} was never uploaded")
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif step["key"] == "deletedFile":
                del files[value["path"]]
        link = None
        if self.query.get("create_pr"):
            at.pulls.append(summary)
            revision = f"refs/pr/{len(at.pulls)}"
            link = f"{self.hub.url}/{repo}/discussions/{len(at.pulls)}"
        oid = at.commit(revision, files)
        url = f"{self.hub.url}/{repo}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": url, "pullRequestUrl": link}

    def branch(self, repo: str, revision: str) -> Any:
        at, name = self.hub.repo(repo), unquote(revision)
        if name in at.refs:
            raise Refusal(409, f"Reference already exists: {name}")
        at.refs[name] = at.refs["main"]
        return {}

    def discussions(self, repo: str) -> Any:
        found = [
            {
                "num": number,
                "title": title,
                "author": {"name": ACCOUNT},
                "createdAt": "2026-01-01T00:00:00.000Z",
                "status": "open",
                "isPullRequest": True,
                "repo": {"name": repo, "type": "model"},
            }
            for number, title in enumerate(self.hub.repo(repo).pulls, 1)
        ]
        return {"count": len(found), "start": 0, "discussions": found}

    def validate_card(self) -> Any:
        errors = find_metadata_errors(json.loads(self.body)["content"])
        if errors:
            raise Refusal(400, "; ".join(errors))
        return {"errors": [], "warnings": []}

    def resolve(self, repo: str, revision: str, name: str) -> Any:
        commit, files = self.hub.snapshot(repo, revision)
        name = unquote(name)
        if name not in files:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        data = files[name]
        etag = sha256(data) if name.endswith(LFS_SUFFIXES) else git_hash(data)
        return data, {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}


_API = rf"/api/models/{_REPO}"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create_repo),
    ("POST", "/api/validate-yaml", _Handler.validate_card),
    ("GET", _API, _Handler.model_info),
    ("GET", f"{_API}/revision/{_REVISION}", _Handler.model_info),
    ("GET", f"{_API}/tree/{_REVISION}", _Handler.tree),
    ("GET", f"{_API}/discussions", _Handler.discussions),
    ("POST", f"{_API}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", f"{_API}/commit/{_REVISION}", _Handler.commit),
    ("POST", f"{_API}/branch/{_REVISION}", _Handler.branch),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_upload),
    ("POST", "/lfs-verify", _Handler.lfs_verify),
    ("GET HEAD", rf"/{_REPO}/resolve/{_REVISION}/(?P<name>.+)", _Handler.resolve),
)
