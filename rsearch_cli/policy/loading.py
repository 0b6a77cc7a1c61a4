"""From the recipe's `policy` section to a policy that runs.

Place in the path: `commands` call it once, before questions are asked. On failure: a model that
cannot be found, a back end that cannot run here and a bad module name raise `PolicyError`.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from rsearch_cli.errors import OutOfMemory, PolicyError, is_shortage, shortage
from rsearch_cli.memory.driver import explain_unused_card
from rsearch_cli.policy.adapter import find_adapter, load_adapter
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.published import BASE, SETTINGS, find_weights, match_adapter
from rsearch_cli.policy.tokenizing import Tokenizing
from rsearch_cli.policy.transformers_backend import check_dtype, count_positions
from rsearch_cli.policy.vllm_engine import VllmPolicy, check_engine
from rsearch_cli.policy.vllm_server import VllmServerPolicy
from rsearch_cli.recipe.policy import Policy, Rollout

BUILTIN = "builtin:"
BUILTIN_FOLDER = Path(__file__).parent.parent / "models"


def locate_model(name: str) -> str:
    """Turn the recipe's model name into a folder or a Hub id.

    Raises:
        PolicyError: If a built-in model or a folder is not there.
    """
    if name.startswith(BUILTIN):
        folder = BUILTIN_FOLDER / name.removeprefix(BUILTIN)
        if not folder.is_dir():
            known = ", ".join(BUILTIN + p.name for p in sorted(BUILTIN_FOLDER.glob("*/")))
            raise PolicyError(f"policy.model: no built-in model {name!r}; there is {known}")
        return str(folder)
    path = Path(name).expanduser()
    if path.is_dir():
        if not any((path / n).is_file() for n in ("config.json", SETTINGS, f"{BASE}/config.json")):
            raise PolicyError(f"policy.model: {name} is no model folder, it has no config.json")
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise PolicyError(f"policy.model: the folder {name} does not exist; check the path")
    return name


def choose_backend(wanted: str) -> tuple[str, str]:
    """Decide between `unsloth` and `transformers`.

    Returns:
        The back end, and why it was taken.

    Raises:
        PolicyError: If the recipe insists on Unsloth and it cannot run here.
    """
    if wanted == "transformers":
        return "transformers", "policy.backend asks for it"
    from rsearch_cli.policy.unsloth_backend import start_unsloth

    problem = start_unsloth()
    if problem is None:
        auto = "policy.backend is auto, and Unsloth runs here"
        return "unsloth", auto if wanted == "auto" else "policy.backend asks for it"
    if unused := explain_unused_card():
        problem = f"{problem} ({unused})"
    if wanted == "unsloth":
        raise PolicyError(
            f"policy.backend: {problem}; use --set policy.backend=auto to fall back to transformers"
        )
    return "transformers", f"policy.backend is auto, and {problem}"


def describe_backend(policy: LocalPolicy) -> str:
    """One line about what runs the policy: the back end, its version, the device and the reason."""
    from importlib.metadata import version

    device = policy.model.device.type
    return (
        f"back end: {policy.backend} {version(policy.backend)} on {device} "
        f"({policy.backend_reason})"
    )


def quieten_libraries() -> None:
    """Keep the progress bars and notices of other libraries out of ours.

    It imports transformers: where Unsloth runs, it has to be chosen before.
    """
    quieten_imports()
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def open_backend(recipe: Policy, rollout: Rollout | None = None) -> tuple[str, str]:
    """Import the back end that will load the model; return its name and why it was taken.

    Unsloth patches what is imported after it, so this comes before anything imports transformers.

    Raises:
        PolicyError: The recipe insists on Unsloth and it cannot run here.
    """
    quieten_imports()
    by_engine = rollout is not None and rollout.engine == "vllm"
    backend, reason = choose_backend("unsloth" if by_engine else recipe.backend)
    quieten_libraries()
    return backend, reason


def load_policy(
    recipe: Policy,
    seed: int,
    rollout: Rollout | None = None,
    trained: Path | None = None,
    tokenizing: Tokenizing | None = None,
) -> LocalPolicy:
    """Load the policy of a recipe, with the adapter that it starts from, or else with a fresh one.

    Args:
        recipe: What to load.
        seed: Decides a fresh adapter.
        rollout: Names the engine that generates; None is the model itself.
        trained: Folder of an adapter to be used as it is and not trained further, whatever shape
            the recipe's has; what its own training started from is left alone.
        tokenizing: The model's tokenizer, if it has been loaded before. It is used in place of the
            back end's, so that prompts are the ones that were checked.

    Raises:
        PolicyError: If it cannot be loaded; the message names the model and what to do.
        EngineUnavailable: The engine cannot run here.
    """
    rollout = rollout or Rollout()
    check_engine(recipe, rollout)
    weights = find_weights(locate_model(recipe.model))
    if weights.adapter is not None:
        recipe = match_adapter(recipe, weights.adapter)
    start = None if trained else find_adapter(recipe) or weights.adapter
    backend, reason = open_backend(recipe, rollout)
    check_dtype(recipe)
    try:
        _check_positions(weights.base, recipe)
        tokenizer = (tokenizing or load_tokenizing(recipe)).tokenizer
        model, _ = _load(backend, weights.base, recipe, seed, rollout)
        if trained is not None:
            _put_on(model, trained)
    except (OSError, ValueError, RuntimeError, ImportError, MemoryError) as error:
        if is_shortage(error):
            raise OutOfMemory(
                f"memory ran out while {recipe.model} was loaded ({shortage(error)}); "
                "`rsearch plan` shows what a run takes"
            ) from error
        raise _unloadable(f"{recipe.model} could not be loaded with {backend}", error) from error
    if start:
        load_adapter(model, start)
    policy: LocalPolicy
    if rollout.engine == "vllm":
        policy = VllmPolicy(model, tokenizer)
    elif rollout.engine == "vllm-server":
        policy = VllmServerPolicy(model, tokenizer, backend, rollout)
    else:
        policy = LocalPolicy(model, tokenizer, backend)
    policy.backend_reason = reason
    return policy


def load_tokenizing(recipe: Policy) -> Tokenizing:
    """Load the tokenizer of a recipe's model alone.

    Raises:
        PolicyError: If it cannot be loaded; the message names the model and what to do.
    """
    quieten_libraries()
    from transformers import AutoTokenizer

    base = find_weights(locate_model(recipe.model)).base
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.chat_template = tokenizer.chat_template or _processor_template(base)
    except Exception as error:  # a file that is cut off raises whatever its reader stumbles over
        raise _unloadable(f"the tokenizer of {recipe.model} could not be loaded", error) from error
    return Tokenizing(tokenizer)


def _processor_template(base: str) -> str | None:
    """The template in chat_template.json, which only processors of transformers read."""
    from transformers.utils import cached_file

    try:
        path = cached_file(base, "chat_template.json")
    except OSError:
        return None
    return str(json.loads(Path(path).read_text(encoding="utf-8"))["chat_template"])


def quieten_imports() -> None:
    """Silence what libraries say while they are imported."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("torch.utils._pytree", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _check_positions(base: str, recipe: Policy) -> None:
    """Refuse rows longer than the model has positions.

    Unsloth would stretch all of them, also for short rows; transformers would go on with positions
    that the model has never seen.
    """
    most = count_positions(base)
    if most and recipe.max_seq_length > most:
        raise PolicyError(
            f"policy.max_seq_length is {recipe.max_seq_length}, and {recipe.model} has positions "
            f"for {most} tokens; use --set policy.max_seq_length={most}, or less"
        )


def _unloadable(what: str, error: Exception) -> PolicyError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return PolicyError(
        f"policy.model: {what}: {first} "
        "(give a model folder with --model-name DIR if the Hub cannot be reached)"
    )


def _put_on(model: Any, adapter: Path) -> None:
    """Let a trained adapter take the place of the fresh one, whatever its shape."""
    fresh = model.active_adapter
    model.load_adapter(str(adapter), "trained", is_trainable=False)
    model.set_adapter("trained")
    model.delete_adapter(fresh)


def _load(backend: str, path: str, recipe: Policy, seed: int, rollout: Rollout) -> tuple[Any, Any]:
    if backend == "unsloth":
        from rsearch_cli.policy.unsloth_backend import load_model as load_with_unsloth

        share = rollout.vllm_memory_share if rollout.engine == "vllm" else None
        return load_with_unsloth(path, recipe, seed, share)
    from rsearch_cli.policy.transformers_backend import load_model

    return load_model(path, recipe, seed)
