"""What `--model` means: a run, an adapter, a model folder, a Hub id or a built-in model.

Place in the path: `commands` ask before a recipe is loaded, because a run brings its own. On
failure: a folder that is none of these, or an adapter that does not say what it belongs to, raises
`PolicyError`; nothing is loaded here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.adapter import CONFIG as ADAPTER_CONFIG
from rsearch_cli.policy.adapter import WEIGHTS as ADAPTER_WEIGHTS
from rsearch_cli.policy.adapter import read_adapter
from rsearch_cli.policy.loading import BUILTIN
from rsearch_cli.policy.published import published_recipe, read_base
from rsearch_cli.policy.weights import describe_gguf, refuse_file
from rsearch_cli.runs.json_text import dump_json

RUN_RECIPE, RUN_ADAPTER = "recipe.yaml", "adapter"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Where a policy's weights come from.

    Attributes:
        base: Model folder, Hub id or built-in name; None leaves it to the recipe.
        adapter: Folder of an adapter on top of it, or None.
        recipe: The recipe of the run that it comes from, or None.
    """

    base: str | None = None
    adapter: Path | None = None
    recipe: Path | None = None


def choose_model(name: str, *, trusted: bool = False) -> ModelChoice:
    """Find out what a name stands for.

    A run stands for its base model with its final adapter; a checkpoint inside of it for that
    checkpoint's. What was published brings its recipe too.

    Args:
        name: What was given for `--model`.
        trusted: Take a path of this machine as the base of an adapter, too.

    Raises:
        PolicyError: A folder holds no model, a run no adapter, or an adapter is broken.
    """
    path = Path(name).expanduser()
    if path.is_file():
        refuse_file(path)
    if (path / ADAPTER_CONFIG).is_file():
        read_adapter(path)
        run = path.parent / RUN_RECIPE
        if run.is_file():
            return ModelChoice(None, path, run)
        return ModelChoice(read_base(path, trusted=trusted), path, published_recipe(name))
    if (path / RUN_RECIPE).is_file():
        adapter = path / RUN_ADAPTER
        if not (adapter / ADAPTER_CONFIG).is_file():
            raise PolicyError(
                f"--model: the run {name} has no adapter yet; finish it with --resume, or name one "
                "of its checkpoint-N folders"
            )
        read_adapter(adapter)
        return ModelChoice(None, adapter, path / RUN_RECIPE)
    if path.is_dir() and not (path / "config.json").is_file():
        gguf = describe_gguf(name, [inside.name for inside in path.iterdir()])
        nothing = (
            f"--model: {name} is no run (no {RUN_RECIPE}), no adapter (no {ADAPTER_CONFIG}) and no "
            "model folder (no config.json)"
        )
        raise PolicyError(gguf or nothing)
    if name.startswith(BUILTIN):
        return ModelChoice(name)
    if not path.is_dir():
        _require_no_sibling(name, path)
    return ModelChoice(name, recipe=published_recipe(name))


def _require_no_sibling(name: str, missing: Path) -> None:
    """Tell a run that is not there from a Hub id, which `runs/typo` could be too."""
    beside = sorted(recipe.parent.name for recipe in missing.parent.glob(f"*/{RUN_RECIPE}"))
    if "/" in name and beside:
        raise PolicyError(
            f"--model: there is no run {name}; {missing.parent} holds {', '.join(beside)}"
        )


def describe_weights(model: str, adapter: Path | None) -> dict[str, str | None]:
    """Name the weights, so that others are not taken for them later.

    Args:
        model: Model folder (as `locate_model` gives it) or Hub id.
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
