"""Stored LoRA adapters: read, check and load them.

An adapter's configuration is untrusted. PEFT never reads the file: the fields that matter are read
here, checked against the weights, and passed on as a configuration of our own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.weight_files import read_header, read_json
from rsearch_cli.recipe.policy import ALL_LINEAR, PolicyConfig
from rsearch_cli.runs.files import ADAPTER, ADAPTER_CONFIG, ADAPTER_WEIGHTS

REFERENCE = "ref"
"""Name of the frozen copy of the first adapter, which TRL uses as the reference of the KL term."""

TRAINED = "trained"
"""Name of an adapter that is only used, not trained."""

# Suffixes of the names under which Unsloth publishes quantised weights.
_QUANTISED = re.compile(r"(-unsloth)?-bnb-4bit$")
_OTHER_SCALES = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
# Supported where an adapter is only used, not where it is trained.
_VARIANTS = (*_OTHER_SCALES, "modules_to_save", "lora_bias")
# Settings that change the meaning of the weights and are not supported.
_FOREIGN = (
    *("use_qalora", "layer_replication", "trainable_token_indices", "target_parameters"),
    *("alora_invocation_tokens", "arrow_config"),
)
# Initialisations that also change the base, so that the adapter does not fit the plain one.
_CHANGES_BASE = ("pissa", "corda", "loftq", "olora", "lora_ga")
_WEIGHT = re.compile(
    r"base_model\.model\.(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?"
)
_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class StoredAdapter:
    """A LoRA adapter on disk, as its files describe it.

    Attributes:
        folder: Its folder.
        base: The base model that it names, or None.
        r: Rank.
        alpha: Scale.
        modules: Path of each adapted module to rank, inputs and outputs, read from the weights.
        variants: Further settings of PEFT's `LoraConfig`; empty for what rsearch trains.
    """

    folder: Path
    base: str | None
    r: int
    alpha: int
    modules: Mapping[str, tuple[int, int, int]]
    variants: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Last names of the adapted modules, such as `q_proj`."""
        return sorted({path.rpartition(".")[2] for path in self.modules})

    def as_config(self) -> Any:
        """Return the PEFT configuration for using the adapter as it is."""
        from peft import LoraConfig

        ranks = {path: rank for path, (rank, _, _) in self.modules.items() if rank != self.r}
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            target_modules=sorted(self.modules),
            task_type="CAUSAL_LM",
            inference_mode=True,
            **{**self.variants, "rank_pattern": {re.escape(path): r for path, r in ranks.items()}},
        )


def read_adapter(folder: Path) -> StoredAdapter:
    """Read a stored adapter's configuration and the shapes of its weights.

    Raises:
        PolicyError: Not a LoRA adapter, of an unsupported kind, or incomplete.
    """
    config = read_json(folder / ADAPTER_CONFIG)
    _refuse_foreign(folder, config)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickled = " but a pickle, which rsearch does not open" * any(folder.glob("*.bin"))
        raise PolicyError(
            f"the adapter {folder} has no weights: there is no {ADAPTER_WEIGHTS} in it{pickled}"
        )
    numbers = [config.get("r"), config.get("lora_alpha")]
    if not all(isinstance(n, int) and 0 < n < 1 << 16 for n in numbers):
        raise PolicyError(f"{folder / ADAPTER_CONFIG} gives r and lora_alpha as {numbers}")
    base = config.get("base_model_name_or_path")
    return StoredAdapter(
        folder=folder,
        base=base if isinstance(base, str) and base else None,
        r=config["r"],
        alpha=config["lora_alpha"],
        modules=_read_modules(folder / ADAPTER_WEIGHTS),
        variants={key: config[key] for key in _VARIANTS if config.get(key)},
    )


def find_adapter(recipe: PolicyConfig) -> Path | None:
    """Find the adapter that `policy.adapter` names, and check it against the recipe.

    Returns:
        The folder with the weights, or None if the recipe names no adapter.

    Raises:
        PolicyError: It does not exist, or does not fit the recipe.
    """
    if recipe.adapter is None:
        return None
    named = Path(recipe.adapter).expanduser()
    folder = next((f for f in (named, named / ADAPTER) if (f / ADAPTER_CONFIG).is_file()), None)
    if folder is None:
        raise PolicyError(
            f"policy.adapter: {named} is neither an adapter folder nor a finished run: there is no "
            f"{ADAPTER_CONFIG} in it, nor in its folder adapter"
        )
    _check_config(folder, read_json(folder / ADAPTER_CONFIG), recipe)
    read_adapter(folder)
    return folder


def load_adapter(
    model: Any, folder: Path, name: str | None = None, *, is_trainable: bool = True
) -> None:
    """Load weights into an existing adapter of a PEFT model.

    Args:
        model: The PEFT model.
        folder: Folder with the weights; its configuration is not read.
        name: Name of the adapter; None means the active one.
        is_trainable: Whether it will be trained.

    Raises:
        PolicyError: They do not fit the model.
    """
    try:
        name = name or model.active_adapter
        loaded = model.load_adapter(str(folder), name, is_trainable=is_trainable)
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


def put_on(model: Any, stored: StoredAdapter) -> None:
    """Replace the fresh adapter of a model by a trained one of any shape.

    Raises:
        PolicyError: It does not fit the model.
    """
    fresh = model.active_adapter
    model.add_adapter(TRAINED, stored.as_config())
    load_adapter(model, stored.folder, TRAINED, is_trainable=False)
    model.set_adapter(TRAINED)
    model.delete_adapter(fresh)


def keep_reference(model: Any) -> None:
    """Freeze a copy of the current adapter as the reference; it is not saved with the model.

    With two adapters in a checkpoint, transformers would only load the second one.
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


def _check_config(folder: Path, config: dict[str, Any], recipe: PolicyConfig) -> None:
    def refuse(problem: str) -> PolicyError:
        return PolicyError(f"policy.adapter: {folder} {problem}")

    if config.get("peft_type") != "LORA":
        raise refuse(f"holds a {config.get('peft_type')} adapter; only LORA can be trained further")
    base = str(config.get("base_model_name_or_path"))
    if plain_name(base) != plain_name(recipe.model):
        raise refuse(f"is for the model {base}, and policy.model is {recipe.model}")
    for key, ours in (("r", "r"), ("lora_alpha", "alpha")):
        number = getattr(recipe.lora, ours)
        if config.get(key) != number:
            raise refuse(
                f"has {key} {config.get(key)}, and policy.lora.{ours} is {number}; "
                f"use --lora-{ours} {config.get(key)}"
            )
    modules, wanted = config.get("target_modules"), recipe.lora.target_modules
    if isinstance(modules, list) and wanted != ALL_LINEAR and set(modules) != set(wanted):
        raise refuse(
            f"is on {', '.join(sorted(modules))}, and policy.lora.target_modules is "
            f"{', '.join(sorted(wanted))}; "
            f"use --lora-target-modules {','.join(sorted(modules))}"
        )
    for key in _OTHER_SCALES:
        if config.get(key):
            raise refuse(f"was made with {key}, which rsearch does not train")


def _refuse_foreign(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse an adapter whose weights would be misinterpreted."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise PolicyError(f"{folder} holds a {kind} adapter; rsearch loads LORA adapters only")
    foreign = [key for key in _FOREIGN if config.get(key)]
    if config.get("bias", "none") != "none":
        foreign.append("bias")
    begun = str(config.get("init_lora_weights")).lower()
    if begun.startswith(_CHANGES_BASE):
        foreign.append(f"init_lora_weights {begun[:20]}")
    if foreign:
        raise PolicyError(
            f"the adapter {folder} was made with {foreign[0]}, which rsearch does not load; merge "
            "it into its base with PEFT, and give the merged model"
        )
    for key, allowed in (
        ("rank_pattern", dict),
        ("alpha_pattern", dict),
        ("modules_to_save", list),
    ):
        value = config.get(key) or allowed()
        # PEFT interprets these names as regular expressions.
        if not isinstance(value, allowed) or not all(_NAME.fullmatch(str(name)) for name in value):
            raise PolicyError(f"{folder / ADAPTER_CONFIG}: {key} does not list names of modules")
        numbers = value.values() if isinstance(value, dict) else ()
        if not all(isinstance(number, int | float) for number in numbers):
            raise PolicyError(f"{folder / ADAPTER_CONFIG}: {key} does not give numbers")


def _read_modules(weights: Path) -> dict[str, tuple[int, int, int]]:
    """Return each adapted module with rank, inputs and outputs."""
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in read_header(weights).items():
        if found := _WEIGHT.fullmatch(name):
            if not tensor.dtype.startswith(("F", "BF")):
                raise PolicyError(f"{weights}: {name[:100]} holds {tensor.dtype}, no real numbers")
            sides.setdefault(found["module"], {})[found["side"]] = tensor.shape
    modules = {}
    for module, shapes in sides.items():
        a, b = shapes.get("A", ()), shapes.get("B", ())
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or not _NAME.fullmatch(module):
            raise PolicyError(f"{weights}: the matrices of {module[:100]} do not belong together")
        modules[module] = (a[0], a[1], b[0])
    if not modules:
        raise PolicyError(f"{weights} holds no matrices of a LoRA adapter")
    return modules


def plain_name(model: str) -> str:
    """Return the last part of a model's name or path, which is stable when a folder moves."""
    last = re.split(r"[/\\:]", model.rstrip("/\\"))[-1].lower()
    return _QUANTISED.sub("", last)
