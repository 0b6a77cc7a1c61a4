"""The repositories of the local Hub, with their commits and the documented rules for model cards.

`hub` serves them over HTTP.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

LFS_SUFFIXES = (".safetensors", ".gguf", ".png")
_LICENCES = {"apache-2.0", "mit", "cc-by-sa-4.0", "llama3", "other", "unknown"}


@dataclass
class Repo:
    """One repository.

    Attributes:
        private: Whether only its owner sees it.
        commits: Commit id to its files by path, in the order they were made.
        refs: Branch or `refs/pr/N` to its commit.
        pulls: Titles of the pull requests, the first is number 1.
    """

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: list[str] = field(default_factory=list)

    def commit(self, ref: str, files: dict[str, bytes]) -> str:
        """Add a commit and let a reference point to it."""
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[name] = files
        self.refs[ref] = name
        return name

    def find(self, revision: str) -> str | None:
        """The commit of a branch, reference or commit id."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Files by path."""
        return self.commits[self.find(revision) or ""]


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, code: str = "", **fields: str) -> None:
        super().__init__(message)
        self.status, self.code, self.fields = status, code, fields


def find_metadata_errors(content: str) -> list[str]:
    """What the Hub's validation would refuse in a card's metadata, as far as it is documented."""
    found = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", content, re.DOTALL)
    if not found:
        return ["empty or missing yaml metadata"]
    data = yaml.safe_load(found.group(1))
    errors = []
    if data.get("license") not in _LICENCES:
        errors.append('"license" must be one of the Hub\'s licences')
    for key in ("tags", "datasets"):
        values = data.get(key, [])
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            errors.append(f'"{key}" must be an array of strings')
    base = data.get("base_model")
    if base is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        errors.append('"base_model" must be the id of a model')
    for model in data.get("model-index", []):
        for result in model["results"]:
            whole = {"task", "dataset", "metrics"} <= result.keys() and {"type", "name"} <= result[
                "dataset"
            ].keys()
            metrics = result.get("metrics", [])
            if not whole or not all({"type", "value"} <= metric.keys() for metric in metrics):
                errors.append('"model-index[0].results" is not as the specification asks')
    return errors


def describe_file(name: str, data: bytes) -> dict[str, Any]:
    """A file as the Hub lists it."""
    described: dict[str, Any] = {
        "type": "file",
        "path": name,
        "size": len(data),
        "oid": git_hash(data),
    }
    if name.endswith(LFS_SUFFIXES):
        described["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
    return described


def sha256(data: bytes) -> str:
    """The name of LFS content."""
    return hashlib.sha256(data).hexdigest()


def git_hash(data: bytes) -> str:
    """The name of a file in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
