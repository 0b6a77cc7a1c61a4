"""What a repository will hold, and what the checks found out about it.

Place in the path: staging fills these records, the card is written from them. On failure: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rsearch_cli.publish.base import Base
from rsearch_cli.publish.merging import MergeCheck
from rsearch_cli.runs.files import ADAPTER


@dataclass(frozen=True, slots=True)
class Contents:
    """What a repository holds.

    Attributes:
        repo_id: `user/name`.
        adapter: The LoRA adapter: at the root, or in `adapter/` beside other weights.
        merged: The merged model, at the root.
        gguf: Name of the GGUF file at the root, or None.
        rank: Rank of the adapter.
        base: The base's weights beside the adapter, in `base/`.
    """

    repo_id: str
    adapter: bool
    merged: bool
    gguf: str | None
    rank: int
    base: bool = False

    @property
    def adapter_folder(self) -> str:
        """The adapter's folder in the repository; "" is the root.

        An adapter at the root is what transformers puts on everything that it loads from the
        repository, its subfolders included.
        """
        return ADAPTER if self.merged or self.base else ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known beside the run itself.

    Attributes:
        contents: What the repository holds.
        base: The base model.
        licence: Licence fields of the base's card.
        merge: How merged weights compared with base and adapter; None if nothing was merged.
        has_curve: Whether there is a picture of the reward.
    """

    contents: Contents
    base: Base
    licence: Mapping[str, Any]
    merge: MergeCheck | None
    has_curve: bool
