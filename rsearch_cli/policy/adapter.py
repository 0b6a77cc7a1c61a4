"""A trained adapter as the start of a further training.

Place in the path: `loading` puts the adapter of `policy.adapter` on the freshly loaded model; a run
that is resumed takes its checkpoint's in the same way. On failure: `PolicyError` for an adapter
that is not there or was made for another model, rank, scale or choice of modules; its
configuration is checked before the model is loaded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rsearch_cli.errors import PolicyError
from rsearch_cli.recipe.policy import Policy
from rsearch_cli.storage.json_text import read_json_object

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
REFERENCE = "ref"
"""Name of the frozen copy of the first adapter; TRL takes it as the reference of the KL term."""

# What Unsloth adds to the name of a model whose weights it has quantised beforehand.
_QUANTISED = re.compile(r"(-unsloth)?-bnb-4bit$")
_OTHER_SCALES = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern")


def find_adapter(recipe: Policy) -> Path | None:
    """The folder of the adapter that `policy.adapter` names, checked against the recipe.

    Returns:
        The folder with the weights, or None where the recipe names no adapter.

    Raises:
        PolicyError: There is none, or it does not fit the recipe.
    """
    if recipe.adapter is None:
        return None
    named = Path(recipe.adapter).expanduser()
    folder = next((f for f in (named, named / "adapter") if (f / CONFIG).is_file()), None)
    if folder is None:
        raise PolicyError(
            f"policy.adapter: {named} is no adapter folder and no finished run: there is no "
            f"{CONFIG} in it, nor in its folder adapter"
        )
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise PolicyError(
            f"policy.adapter: {folder} has no weights: there is no {WEIGHTS[0]} in it"
        )
    try:
        config = read_json_object(folder / CONFIG)
    except (OSError, ValueError) as error:
        raise PolicyError(f"policy.adapter: {folder / CONFIG} cannot be read: {error}") from error
    _check_config(folder, config, recipe)
    return folder


def load_adapter(model: Any, folder: Path) -> None:
    """Load weights into the adapter that a PEFT model has, to be trained further.

    Raises:
        PolicyError: They do not fit the model.
    """
    try:
        loaded = model.load_adapter(str(folder), model.active_adapter, is_trainable=True)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PolicyError(
            f"policy.adapter: the weights in {folder} do not fit the model: {reason}"
        ) from error
    strays = [*loaded.missing_keys, *loaded.unexpected_keys]
    if strays:
        raise PolicyError(
            f"policy.adapter: the weights in {folder} do not fit the model: {len(strays)} are in "
            f"only one of the two, such as {strays[0]}"
        )


def keep_reference(model: Any) -> None:
    """Freeze a copy of the adapter as it is now as the reference; it is not saved with the model.

    A second adapter in a checkpoint would be all that transformers loads again from it.
    """
    name = model.active_adapter
    if REFERENCE in model.peft_config:
        model.delete_adapter(REFERENCE)
    model.add_adapter(REFERENCE, model.peft_config[name])
    for path, weight in model.named_parameters():
        if f".{name}." in path:
            copy = model.get_parameter(path.replace(f".{name}.", f".{REFERENCE}."))
            copy.data = weight.data.clone()
            copy.requires_grad_(False)
    save = model.save_pretrained

    def save_trained(*args: Any, **kwargs: Any) -> Any:
        return save(*args, **{"selected_adapters": [name], **kwargs})

    model.save_pretrained = save_trained


def _check_config(folder: Path, config: dict[str, Any], recipe: Policy) -> None:
    def refuse(problem: str) -> PolicyError:
        return PolicyError(f"policy.adapter: {folder} {problem}")

    if config.get("peft_type") != "LORA":
        raise refuse(f"holds a {config.get('peft_type')} adapter; only LORA can be trained further")
    base = str(config.get("base_model_name_or_path"))
    if _plain_name(base) != _plain_name(recipe.model):
        raise refuse(f"is for the model {base}, and policy.model is {recipe.model}")
    for key, field in (("r", "r"), ("lora_alpha", "alpha")):
        wanted = getattr(recipe.lora, field)
        if config.get(key) != wanted:
            raise refuse(
                f"has {key} {config.get(key)}, and policy.lora.{field} is {wanted}; "
                f"use --lora-{field} {config.get(key)}"
            )
    modules = config.get("target_modules")
    if isinstance(modules, list) and set(modules) != set(recipe.lora.target_modules):
        raise refuse(
            f"is on {', '.join(sorted(modules))}, and policy.lora.target_modules is "
            f"{', '.join(sorted(recipe.lora.target_modules))}; "
            f"use --lora-target-modules {','.join(sorted(modules))}"
        )
    for key in _OTHER_SCALES:
        if config.get(key):
            raise refuse(f"was made with {key}, which rsearch does not train")


def _plain_name(model: str) -> str:
    """The last part of a model's name or path, which stays when a folder moves."""
    last = re.split(r"[/\\:]", model.rstrip("/\\"))[-1].lower()
    return _QUANTISED.sub("", last)
