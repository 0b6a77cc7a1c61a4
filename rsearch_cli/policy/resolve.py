"""Resolve a model name to its files: a run, an adapter, a model folder, a Hub id or a built-in.

Nothing is loaded here, so a wrong name fails before anything slow starts. A Hub repository that
cannot be reached is taken for a whole model; the back end then reports what is wrong with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rsearch_cli.errors import PolicyError, first_line
from rsearch_cli.policy.adapter import StoredAdapter, read_adapter
from rsearch_cli.policy.weight_files import (
    CONFIG,
    check_model_folder,
    describe_gguf,
    read_json,
    refuse_file,
)
from rsearch_cli.recipe.policy import LoraConfig, PolicyConfig
from rsearch_cli.recipe.trust import is_builtin, names_no_path
from rsearch_cli.runs.files import ADAPTER, ADAPTER_CONFIG, ADAPTER_WEIGHTS, RECIPE
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.services.hub import ask_hub

BUILTIN = "builtin:"
BUILTIN_FOLDER = Path(__file__).parent.parent / "models"

BASE = "base"
"""Folder of an adapter's base model in a published agent."""

MANIFEST = "rsearch.json"
"""Lists the files that a push wrote; the next push replaces exactly these."""

# What is downloaded of an adapter's repository; GGUF files and images are not.
_ADAPTER_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.yaml"]
# Bytes of a recipe, a manifest or the settings of an adapter.
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What `--model` names.

    Attributes:
        base: Model folder, Hub id or built-in name; None leaves it to the recipe.
        adapter: Folder of the adapter to put on it, or None.
        recipe: Recipe of the run that the model comes from, or None.
    """

    base: str | None = None
    adapter: Path | None = None
    recipe: Path | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """What is loaded for a model.

    Attributes:
        base: Folder or Hub id of a whole model.
        adapter: Folder of the adapter to put on it, or None.
    """

    base: str
    adapter: Path | None = None


def choose_model(name: str, *, trusted: bool = False) -> ModelChoice:
    """Resolve `--model`.

    A run folder means its base model with the final adapter; a checkpoint inside it means that
    checkpoint's adapter. A published agent brings its recipe along.

    Args:
        name: The value of `--model`.
        trusted: Allow an adapter to name a local path as its base.

    Raises:
        PolicyError: A folder without a model, a run without an adapter, or a broken adapter.
    """
    path = Path(name).expanduser()
    if path.is_file():
        refuse_file(path)
    if (path / ADAPTER_CONFIG).is_file():
        read_adapter(path)
        run = path.parent / RECIPE
        if run.is_file():
            return ModelChoice(None, path, run)
        return ModelChoice(read_base(path, trusted=trusted), path, published_recipe(name))
    if (path / RECIPE).is_file():
        adapter = path / ADAPTER
        if not (adapter / ADAPTER_CONFIG).is_file():
            raise PolicyError(
                f"the run {name} has no adapter yet; finish it with --resume, or name one "
                "of its checkpoint-N folders"
            )
        read_adapter(adapter)
        return ModelChoice(None, adapter, path / RECIPE)
    if path.is_dir() and not (path / CONFIG).is_file():
        gguf = describe_gguf(name, [inside.name for inside in path.iterdir()])
        nothing = (
            f"{name} is not a run (no {RECIPE}), an adapter (no {ADAPTER_CONFIG}) or a "
            f"model folder (no {CONFIG})"
        )
        raise PolicyError(gguf or nothing)
    if name.startswith(BUILTIN):
        return ModelChoice(name)
    if not path.is_dir():
        _refuse_mistyped_run(name, path)
    return ModelChoice(name, recipe=published_recipe(name))


def _refuse_mistyped_run(name: str, missing: Path) -> None:
    """Refuse `runs/typo`, which would otherwise pass for a Hub id."""
    beside = sorted(recipe.parent.name for recipe in missing.parent.glob(f"*/{RECIPE}"))
    if "/" in name and beside:
        raise PolicyError(f"there is no run {name}; {missing.parent} holds {', '.join(beside)}")


def locate_model(name: str) -> str:
    """Resolve the recipe's `policy.model` to a folder or a Hub id.

    Raises:
        PolicyError: A built-in model or a folder does not exist, or a folder cannot be loaded.
    """
    if name.startswith(BUILTIN):
        folder = BUILTIN_FOLDER / name.removeprefix(BUILTIN)
        if not (is_builtin(name) and folder.is_dir()):
            known = ", ".join(BUILTIN + p.name for p in sorted(BUILTIN_FOLDER.glob("*/")))
            raise PolicyError(f"policy.model: no built-in model {name!r}; there is {known}")
        return str(folder)
    path = Path(name).expanduser()
    if path.is_file():
        refuse_file(path)
    if path.is_dir():
        _check_folder(path, name)
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise PolicyError(f"policy.model: the folder {name} does not exist; check the path")
    return name


def _check_folder(path: Path, name: str) -> None:
    if (path / ADAPTER_CONFIG).is_file():
        read_adapter(path)
    elif (path / CONFIG).is_file():
        check_model_folder(path)
    elif (path / BASE / CONFIG).is_file():
        check_model_folder(path / BASE)
        read_adapter(path / ADAPTER)
    else:
        problem = describe_gguf(name, [inside.name for inside in path.iterdir()])
        raise PolicyError(
            problem or f"policy.model: {name} is not a model folder, it has no {CONFIG}"
        )


def find_weights(path: str) -> Weights:
    """Tell an adapter from a whole model; an adapter on the Hub is downloaded.

    An adapter lies at the root and names its base, or in `adapter/` with its base in `base/`.

    Args:
        path: Folder or Hub id.

    Raises:
        PolicyError: The base of an adapter cannot be found or is not allowed.
    """
    root = Path(path) if Path(path).is_dir() else _download_adapter(path)
    if root is None:
        return Weights(path)
    if (root / ADAPTER_CONFIG).is_file():
        return Weights(read_base(root), root)
    if (root / BASE / CONFIG).is_file() and not (root / CONFIG).is_file():
        if _is_adapter(str(root / BASE)):
            raise PolicyError(f"policy.model: {BASE}/ of {path} is an adapter, not a whole model")
        return Weights(str(root / BASE), root / ADAPTER)
    return Weights(path)


def read_base(adapter: Path, *, trusted: bool = False) -> str:
    """Return the base that an adapter names: a Hub id, or a model inside the package.

    A local path is accepted from a trusted adapter only: it could name any file of this machine.

    Raises:
        PolicyError: It names none, or one that is not allowed.
    """
    base = read_json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise PolicyError(
            f"policy.model: the adapter {adapter} does not name its base model; give the run "
            "folder that it comes from"
        )
    inside = Path(base).is_absolute() and Path(base).resolve().is_relative_to(BUILTIN_FOLDER)
    if not (trusted or inside or names_no_path(base)):
        raise PolicyError(
            f"policy.model: the adapter {adapter} names the local folder {base!r} as its base, and "
            "paths from adapters are not trusted; name the base yourself with --set "
            "policy.model=FOLDER"
        )
    if _is_adapter(base):
        raise PolicyError(
            f"policy.model: the adapter {adapter} names {base} as its base, which is an adapter "
            "itself; give the model that both belong to"
        )
    return base


def match_adapter(recipe: PolicyConfig, adapter: StoredAdapter) -> PolicyConfig:
    """Return the policy section with the LoRA settings of a stored adapter.

    Raises:
        PolicyError: It is not a plain LoRA adapter.
    """
    ranks = {rank for rank, _, _ in adapter.modules.values()}
    extras = [*adapter.variants, *("different ranks" for _ in ranks - {adapter.r})]
    if extras:
        raise PolicyError(
            f"policy.model: {adapter.folder} is not a plain LoRA adapter ({extras[0]}); rsearch "
            "continues training for plain LoRA only"
        )
    lora = LoraConfig(
        r=adapter.r,
        alpha=adapter.alpha,
        dropout=recipe.lora.dropout,
        target_modules=adapter.names,
    )
    return recipe.model_copy(update={"lora": lora})


def published_recipe(path: str) -> Path | None:
    """Return the recipe that a published agent was trained with, or None.

    Args:
        path: Folder or Hub id.
    """
    if Path(path).is_dir():
        recipe = Path(path) / RECIPE
        return recipe if recipe.is_file() else None
    return _download(path, RECIPE)


def describe_weights(model: str, adapter: Path | None) -> dict[str, str | None]:
    """Fingerprint the weights, so that an evaluation is not continued with others.

    Args:
        model: Model folder (as `locate_model` returns it) or Hub id.
        adapter: Folder of the adapter, or None.

    Returns:
        `weights`: hash over names, sizes and times of the model's files (null for a Hub id);
        `adapter`: hash of the adapter's weights, or null.
    """
    folder = Path(model)
    listing = None
    if folder.is_dir():
        files = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin"))
        facts = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        listing = hashlib.sha256(dump_json(facts, ensure_ascii=True).encode()).hexdigest()[:16]
    return {"weights": listing, "adapter": None if adapter is None else _hash_adapter(adapter)}


def _hash_adapter(adapter: Path) -> str:
    try:
        with (adapter / ADAPTER_WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise PolicyError(
            f"--model: the adapter {adapter} cannot be read: {error.strerror} ({ADAPTER_WEIGHTS})"
        ) from error


def _download_adapter(path: str) -> Path | None:
    """Download a repository that holds an adapter; None for a whole model, which is not fetched."""
    if _download(path, ADAPTER_CONFIG) is None:
        manifest = _download(path, MANIFEST)
        if manifest is None or not read_json(manifest).get("base"):
            return None
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, allow_patterns=_ADAPTER_FILES))
    except OSError as error:
        raise PolicyError(
            f"policy.model: {path} could not be downloaded: {first_line(error)}"
        ) from error


def _download(repo: str, name: str) -> Path | None:
    """Download one file of a repository; None if it does not exist or the Hub is out of reach.

    Raises:
        PolicyError: The file is far larger than any that a push writes.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    ask_hub()
    try:
        size = hf_hub_download(repo, name, dry_run=True).file_size or 0
        if size <= _MOST_BYTES:
            return Path(hf_hub_download(repo, name))
    except (OSError, ValueError, EntryNotFoundError):
        return None
    raise PolicyError(
        f"policy.model: {name} of {repo} has {size:,} bytes, and at most {_MOST_BYTES:,} are "
        "downloaded; no agent needs more"
    )


def _is_adapter(model: str) -> bool:
    """Whether a base is itself an adapter, which transformers would silently follow to its base."""
    if Path(model).is_dir():
        return (Path(model) / ADAPTER_CONFIG).is_file()
    return _download(model, ADAPTER_CONFIG) is not None
