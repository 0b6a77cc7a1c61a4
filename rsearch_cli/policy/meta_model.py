"""A model without weights, on torch's `meta` device, to check adapters and modules against.

It takes a second and no memory, so that what does not fit is refused before anything is downloaded.
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

# transformers stacks the modules of experts on loading, and PEFT renames their adapters.
_STACKED = ".experts."


class MetaModel:
    """A model's modules, from its configuration.

    Args:
        base: Folder or Hub id.
        trust_remote_code: Run code that comes with the model.

    Attributes:
        positions: Maximum number of positions; None if the configuration does not say.

    Raises:
        PolicyError: The weights are stored in an unsupported quantised form.
        OSError: There is no configuration.
        ValueError: Not a causal language model that transformers knows.
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
        """Return the policy section with `target_modules` resolved and checked.

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
        """Check that every matrix of an adapter fits a module of the model.

        Raises:
            PolicyError: The adapter was made for another model.
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
        """Load an adapter as PEFT does for anyone who downloads it; the model is used up by it.

        Args:
            folder: Its adapter_config.json must be one that rsearch wrote, because PEFT reads it.

        Raises:
            PolicyError: PEFT cannot load it, or weights are missing, unexpected or not finite.
        """
        import torch
        from peft import PeftModel, get_peft_model_state_dict
        from safetensors.torch import load_file

        try:
            with warnings.catch_warnings(action="ignore"):  # checked below
                model = PeftModel.from_pretrained(self._model, folder, low_cpu_mem_usage=True)
            stored = load_file(folder / ADAPTER_WEIGHTS)
            # By default it asks the Hub whether the vocabulary is the base's.
            with_embeddings = any("embed" in name for name in stored)
            loaded = get_peft_model_state_dict(model, save_embedding_layers=with_embeddings)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise PolicyError(f"the adapter {folder} cannot be loaded: {reason}") from error
        if strays := sorted(stored.keys() ^ loaded.keys()):
            raise PolicyError(f"the adapter {folder}: {strays[0]} is missing, or fits nothing")
        for name, weight in stored.items():
            if not torch.isfinite(weight).all():
                raise PolicyError(f"the adapter {folder}: {name} holds a number that is not finite")

    def _linear_names(self) -> list[str]:
        """Return the last names of all linear modules except the head, sorted."""
        head = self._model.get_output_embeddings()
        named = [(p, m) for p, m in self._model.named_modules() if m is not head and _is_linear(m)]
        return sorted({path.rpartition(".")[2] for path, _ in named})


def _is_linear(module: Any) -> bool:
    import torch
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | Conv1D)


def _sizes(module: Any) -> tuple[int, int] | None:
    """Return inputs and outputs of a module that can have an adapter; None for others."""
    if _is_linear(module):
        if hasattr(module, "in_features"):
            return module.in_features, module.out_features
        return module.nx, module.nf
    if hasattr(module, "num_embeddings"):
        return module.num_embeddings, module.embedding_dim
    return None
