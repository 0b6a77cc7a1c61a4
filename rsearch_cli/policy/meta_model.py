"""A model without its weights: what its configuration alone says about modules and adapters.

It is made on torch's `meta` device, in a second and without memory, so that an adapter or a choice
of modules that does not fit is refused before anything is downloaded or loaded.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.adapter import StoredAdapter, plain_name
from rsearch_cli.policy.weight_files import refuse_quantised
from rsearch_cli.recipe.policy import ALL_LINEAR, PolicyConfig
from rsearch_cli.runs.files import ADAPTER_WEIGHTS

logger = logging.getLogger(__name__)

# Their modules are stacked into one as the model is loaded, and PEFT renames their adapters.
_STACKED = ".experts."


class MetaModel:
    """A model's modules, from its configuration.

    Args:
        base: Folder or Hub id.
        trust_remote_code: Run code that comes with the model.

    Attributes:
        positions: Tokens that the model has positions for; None if its configuration does not say.

    Raises:
        PolicyError: The weights are stored in a form that is not loaded here.
        OSError: The configuration is not there.
        ValueError: It is of no causal language model that transformers knows.
    """

    def __init__(self, base: str, *, trust_remote_code: bool) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
        refuse_quantised(base, getattr(config, "quantization_config", None))
        text = config.get_text_config()
        self.positions: int | None = getattr(text, "max_position_embeddings", None)
        self._base = base
        with torch.device("meta"):
            self._model = AutoModelForCausalLM.from_config(
                config, trust_remote_code=trust_remote_code
            )

    def choose_modules(self, recipe: PolicyConfig) -> PolicyConfig:
        """The policy section with the names of modules that get an adapter, each of which is there.

        Raises:
            PolicyError: A name matches no linear module of the model.
        """
        wanted, there = recipe.lora.target_modules, self._linear_names()
        if wanted == ALL_LINEAR:
            lora = recipe.lora.model_copy(update={"target_modules": there})
            return recipe.model_copy(update={"lora": lora})
        paths = [path for path, _ in self._model.named_modules()]
        for name in wanted:
            if not any(path == name or path.endswith(f".{name}") for path in paths):
                raise PolicyError(
                    f"policy.lora.target_modules: {recipe.model} has no module {name}; its linear "
                    f"modules are {', '.join(there)}"
                )
        return recipe

    def require_fit(self, adapter: StoredAdapter) -> None:
        """Check that every matrix of an adapter belongs to a module of the model.

        Raises:
            PolicyError: One does not: the adapter was made for another model.
        """
        modules = dict(self._model.named_modules())
        for path, (_, inputs, outputs) in adapter.modules.items():
            module = modules.get(path)
            if module is None and _STACKED in path:
                continue
            here = None if module is None else _sizes(module)
            if here != (inputs, outputs):
                found = f"{here[0]} and {here[1]}" if here else "no such module"
                raise PolicyError(
                    f"the adapter {adapter.folder} is for another model than {self._base} (it "
                    f"names {adapter.base or 'none'} as its base): for {path} it has {inputs} "
                    f"inputs and {outputs} outputs, and the model has {found}"
                )
        named = adapter.base and plain_name(adapter.base)
        if named and named != plain_name(self._base):
            logger.warning(
                f"the adapter {adapter.folder} says that its base is {adapter.base}; it is put on "
                f"{self._base}, which has the same modules"
            )

    def load(self, folder: Path) -> None:
        """Put a whole adapter on the model, as PEFT does for anybody who downloads it.

        The model has an adapter afterwards, and is of no further use.

        Args:
            folder: With an adapter_config.json that rsearch wrote: PEFT reads it.

        Raises:
            PolicyError: PEFT cannot load it, or a weight is missing, too many or no number.
        """
        import torch
        from peft import PeftModel, get_peft_model_state_dict
        from safetensors.torch import load_file

        try:
            with warnings.catch_warnings(action="ignore"):  # what it warns of is checked below
                model = PeftModel.from_pretrained(self._model, folder, low_cpu_mem_usage=True)
            stored = load_file(folder / ADAPTER_WEIGHTS)
            # Left to itself, it asks the Hub whether the vocabulary is the base's.
            with_embeddings = any("embed" in name for name in stored)
            loaded = get_peft_model_state_dict(model, save_embedding_layers=with_embeddings)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise PolicyError(f"the adapter {folder} cannot be loaded: {reason}") from error
        if strays := sorted(stored.keys() ^ loaded.keys()):
            raise PolicyError(f"the adapter {folder}: {strays[0]} is missing, or fits nothing")
        for name, weight in stored.items():
            if not torch.isfinite(weight).all():
                raise PolicyError(f"the adapter {folder}: {name} holds what is no finite number")

    def _linear_names(self) -> list[str]:
        """Last names of all linear modules but the head, sorted."""
        head = self._model.get_output_embeddings()
        named = [(p, m) for p, m in self._model.named_modules() if m is not head and _is_linear(m)]
        return sorted({path.rpartition(".")[2] for path, _ in named})


def _is_linear(module: Any) -> bool:
    import torch
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | Conv1D)


def _sizes(module: Any) -> tuple[int, int] | None:
    """Inputs and outputs of a module that can have an adapter; None for any other."""
    if _is_linear(module):
        if hasattr(module, "in_features"):
            return module.in_features, module.out_features
        return module.nx, module.nf
    if hasattr(module, "num_embeddings"):
        return module.num_embeddings, module.embedding_dim
    return None
