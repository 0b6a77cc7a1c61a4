"""Agents that `rsearch push` published: which base an adapter belongs to, and its recipe.

Place in the path: between a model's name and the back end that loads it. An adapter is told from a
whole model: it lies at the root and names its base, or in `adapter/` with its base in `base/`. On
failure: an adapter that cannot be put on its base as it is raises `PolicyError`; a repository that
cannot be asked counts as a whole model, so that the back end says what is wrong with it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import PolicyError
from rsearch_cli.recipe.policy import Lora, Policy
from rsearch_cli.services.hub import ask_hub

SETTINGS = "adapter_config.json"
ADAPTER = "adapter"
BASE = "base"
MANIFEST = "rsearch.json"
"""Where an adapter's base lies, and all that a push put there: the next one replaces just that."""
RECIPE = "recipe.yaml"
# Of an adapter: GGUF and pictures are not loaded.
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.yaml"]
_PLAIN = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save")


@dataclass(frozen=True, slots=True)
class Weights:
    """What is loaded for a model's name.

    Attributes:
        base: Folder or Hub id of a whole model.
        adapter: Folder of the adapter that goes on it, or None.
    """

    base: str
    adapter: Path | None = None


def find_weights(path: str) -> Weights:
    """Tell an adapter from a whole model; an adapter is downloaded.

    Args:
        path: Folder or Hub id.

    Raises:
        PolicyError: An adapter without a base that could be found.
    """
    root = Path(path) if Path(path).is_dir() else _download_adapter(path)
    if root is None:
        return Weights(path)
    if (root / SETTINGS).is_file():
        base = _settings(root).get("base_model_name_or_path")
        if not base:
            raise PolicyError(f"policy.model: the adapter {path} does not name its base model")
        if not Path(base).is_dir():
            ask_hub()
        return Weights(str(base), root)
    if (root / BASE / "config.json").is_file() and not (root / "config.json").is_file():
        return Weights(str(root / BASE), root / ADAPTER)
    return Weights(path)


def match_adapter(recipe: Policy, adapter: Path) -> Policy:
    """The policy section with the LoRA settings that a stored adapter was made with.

    Raises:
        PolicyError: It is not a plain LoRA adapter.
    """
    settings = _settings(adapter)
    extras = [name for name in _PLAIN if settings.get(name)]
    if settings.get("peft_type") != "LORA" or extras:
        kind = ", ".join([str(settings.get("peft_type")), *extras])
        raise PolicyError(f"policy.model: {adapter} is no plain LoRA adapter ({kind})")
    lora = Lora(
        r=settings["r"],
        alpha=settings["lora_alpha"],
        dropout=recipe.lora.dropout,
        target_modules=sorted(settings["target_modules"]),
    )
    return recipe.model_copy(update={"lora": lora})


def published_recipe(path: str) -> Path | None:
    """The recipe that a published agent was trained with: protocol, prompt and sources.

    Args:
        path: Folder or Hub id.
    """
    if Path(path).is_dir():
        recipe = Path(path) / RECIPE
        return recipe if recipe.is_file() else None
    return _download(path, RECIPE)


def _download_adapter(path: str) -> Path | None:
    """A repository whose weights are an adapter; None for a whole model, which is not fetched."""
    if _download(path, SETTINGS) is None:
        manifest = _download(path, MANIFEST)
        if manifest is None or not json.loads(manifest.read_text(encoding="utf-8"))["base"]:
            return None
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, allow_patterns=_FILES))
    except OSError as error:
        first = str(error).splitlines()[0]
        raise PolicyError(f"policy.model: {path} could not be downloaded: {first}") from error


def _download(repo: str, name: str) -> Path | None:
    """One file of a repository, or None if it is not there or cannot be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    ask_hub()
    try:
        return Path(hf_hub_download(repo, name))
    except (OSError, ValueError, EntryNotFoundError):
        return None


def _settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return settings
