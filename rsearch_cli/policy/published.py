"""Agents that `rsearch push` published: which base an adapter belongs to, and its recipe.

An adapter is told from a whole model: it lies at the root and names its base, or in `adapter/` with
its base in `base/`. A repository that cannot be asked counts as a whole model, so that the back end
says what is wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.adapter import CONFIG as ADAPTER_CONFIG
from rsearch_cli.policy.adapter import StoredAdapter
from rsearch_cli.policy.weights import read_json
from rsearch_cli.recipe.policy import LoraConfig, PolicyConfig
from rsearch_cli.recipe.trust import is_hub_id
from rsearch_cli.services.hub import ask_hub

ADAPTER = "adapter"
BASE = "base"
MANIFEST = "rsearch.json"
"""Where an adapter's base lies, and all that a push put there: the next one replaces just that."""
RECIPE = "recipe.yaml"
# Of an adapter: GGUF and pictures are not loaded.
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.yaml"]
_MODELS = Path(__file__).parent.parent / "models"


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
        PolicyError: An adapter without a base that could be found or may be taken.
    """
    root = Path(path) if Path(path).is_dir() else _download_adapter(path)
    if root is None:
        return Weights(path)
    if (root / ADAPTER_CONFIG).is_file():
        return Weights(read_base(root), root)
    if (root / BASE / "config.json").is_file() and not (root / "config.json").is_file():
        if _is_adapter(str(root / BASE)):
            raise PolicyError(f"policy.model: {BASE}/ of {path} is an adapter, and no whole model")
        return Weights(str(root / BASE), root / ADAPTER)
    return Weights(path)


def read_base(adapter: Path, *, trusted: bool = False) -> str:
    """The base that an adapter names: a Hub id, or the model inside rsearch.

    A path is only taken from an adapter that is trusted: on this machine, it may name anything.

    Raises:
        PolicyError: It names none, or one that is not taken.
    """
    base = read_json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise PolicyError(
            f"policy.model: the adapter {adapter} does not name its base model; give the run "
            "folder that it comes from"
        )
    inside = Path(base).is_absolute() and Path(base).resolve().is_relative_to(_MODELS)
    if not (trusted or inside or is_hub_id(base)):
        raise PolicyError(
            f"policy.model: the adapter {adapter} names the folder {base!r} as its base, and a "
            "path is not taken from an adapter; name the base yourself, with --set "
            "policy.model=FOLDER"
        )
    if _is_adapter(base):
        raise PolicyError(
            f"policy.model: the adapter {adapter} names {base} as its base, which is an adapter "
            "itself; give the model that both are for"
        )
    return base


def match_adapter(recipe: PolicyConfig, adapter: StoredAdapter) -> PolicyConfig:
    """The policy section with the LoRA settings that a stored adapter was made with.

    Raises:
        PolicyError: It is not a plain LoRA adapter.
    """
    ranks = {rank for rank, _, _ in adapter.modules.values()}
    extras = [*adapter.variants, *("different ranks" for _ in ranks - {adapter.r})]
    if extras:
        raise PolicyError(
            f"policy.model: {adapter.folder} is no plain LoRA adapter ({extras[0]}), and rsearch "
            "trains no other further"
        )
    lora = LoraConfig(
        r=adapter.r,
        alpha=adapter.alpha,
        dropout=recipe.lora.dropout,
        target_modules=adapter.names,
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
    if _download(path, ADAPTER_CONFIG) is None:
        manifest = _download(path, MANIFEST)
        if manifest is None or not read_json(manifest).get("base"):
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


def _is_adapter(model: str) -> bool:
    """Whether what a base is called is an adapter, which transformers would follow to its own."""
    if Path(model).is_dir():
        return (Path(model) / ADAPTER_CONFIG).is_file()
    return _download(model, ADAPTER_CONFIG) is not None
