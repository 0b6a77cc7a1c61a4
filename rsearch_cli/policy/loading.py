"""Load the policy of a recipe: choose a back end, load weights and adapters, check their fit."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from rsearch_cli.compat.transformers import missing_weights_refused
from rsearch_cli.errors import PolicyError, RsearchError, first_line
from rsearch_cli.memory.driver import explain_unused_card
from rsearch_cli.policy.adapter import (
    StoredAdapter,
    find_adapter,
    load_adapter,
    put_on,
    read_adapter,
)
from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.meta_model import MetaModel
from rsearch_cli.policy.prompts import fit_recipe
from rsearch_cli.policy.resolve import find_weights, locate_model, match_adapter
from rsearch_cli.policy.transformers_backend import check_dtype
from rsearch_cli.policy.vllm_engine import check_engine
from rsearch_cli.policy.weight_files import (
    check_files,
    describe_gguf,
)
from rsearch_cli.recipe.policy import ENGINES, PolicyConfig, RolloutConfig
from rsearch_cli.recipe.schema import Recipe

logger = logging.getLogger(__name__)


def choose_backend(wanted: str) -> tuple[str, str]:
    """Choose between `unsloth` and `transformers`.

    Args:
        wanted: `policy.backend`.

    Returns:
        The back end and the reason for it, with the cause if a card of this machine is not used.

    Raises:
        PolicyError: The recipe requires Unsloth, which cannot run here.
    """
    problem = None
    if wanted != "transformers":
        from rsearch_cli.compat.unsloth import start_unsloth

        problem = start_unsloth()
    unused = explain_unused_card()
    cause = f"; {unused}" if unused else ""
    if wanted == "unsloth" and problem is not None:
        raise PolicyError(
            f"policy.backend: {problem}{cause}; use --set policy.backend=auto to fall back to "
            "transformers"
        )
    if wanted != "auto":
        return wanted, f"policy.backend asks for it{cause}"
    if problem is None:
        return "unsloth", f"policy.backend is auto, and Unsloth runs here{cause}"
    return "transformers", f"policy.backend is auto, and {problem}{cause}"


def describe_backend(policy: LocalPolicy) -> str:
    """Return a line with the back end, its version, the device and the reason for the choice."""
    from importlib.metadata import version

    device = policy.model.device.type
    return (
        f"back end: {policy.backend} {version(policy.backend)} on {device} "
        f"({policy.backend_reason})"
    )


def quieten_libraries() -> None:
    """Suppress the progress bars, notices and prompts of other libraries.

    Imports transformers, so Unsloth has to be imported before.
    """
    quieten_imports()
    from transformers import dynamic_module_utils
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # transformers 5.17 asks on stdin whether to run a model's own code if a calling library does
    # not say; a time limit of 0 means no.
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


def open_backend(recipe: PolicyConfig, rollout: RolloutConfig | None = None) -> tuple[str, str]:
    """Import the back end that will load the model; return its name and the reason for it.

    Unsloth patches what is imported after it, so this comes before anything imports transformers.

    Raises:
        PolicyError: The recipe requires Unsloth, which cannot run here.
    """
    quieten_imports()
    by_engine = rollout is not None and rollout.engine == "vllm"
    backend, reason = choose_backend("unsloth" if by_engine else recipe.backend)
    quieten_libraries()
    return backend, reason


def load_policy(
    recipe: PolicyConfig,
    seed: int,
    rollout: RolloutConfig | None = None,
    trained: Path | None = None,
    chat_tokenizer: ChatTokenizer | None = None,
) -> LocalPolicy:
    """Load the policy of a recipe, with the adapter that it starts from or else a fresh one.

    Args:
        recipe: What to load.
        seed: Seed of a fresh adapter.
        rollout: Its engine generates; None means the model itself.
        trained: Folder of an adapter of any shape that is only used, not trained; it replaces the
            recipe's own.
        chat_tokenizer: The model's tokenizer, if already loaded. It replaces the back end's own, so
            that the prompts are the ones that were checked.

    Raises:
        PolicyError: It cannot be loaded; the message says what to do.
        EngineUnavailable: The engine cannot run here.
    """
    rollout = rollout or RolloutConfig()
    check_engine(recipe, rollout)
    weights = find_weights(locate_model(recipe.model))
    on_it = [read_adapter(folder) for folder in (weights.adapter, trained) if folder]
    if weights.adapter is not None:
        recipe = match_adapter(recipe, on_it[0])
    start = None if trained else find_adapter(recipe) or weights.adapter
    if start and start != weights.adapter:
        on_it.append(read_adapter(start))
    backend, reason = open_backend(recipe, rollout)
    check_dtype(recipe)
    with _explaining(f"{recipe.model} could not be loaded with {backend}", weights.base):
        recipe = _fit_to_model(recipe, weights.base, on_it)
        tokenizer = (chat_tokenizer or load_tokenizer(recipe)).tokenizer
        with missing_weights_refused(weights.base):
            model = _load(backend, weights.base, recipe, seed, rollout)
        if trained is not None:
            put_on(model, on_it[-1])
    if start:
        load_adapter(model, start)
    engine: type[LocalPolicy] = resolve_name(ENGINES[rollout.engine])
    policy = engine.from_model(model, tokenizer, backend, rollout)
    if engine is LocalPolicy:
        _require_numbers(policy, weights.base, trained or start)
    policy.backend_reason = reason
    return policy


def _require_numbers(policy: LocalPolicy, base: str, adapter: Path | None) -> None:
    """Refuse weights with NaN or infinity, which always generate the same token.

    Raises:
        PolicyError: The model computes no probability for a first token.
    """
    if not all(isfinite(value) for _, value in policy.sample_log_probs([policy.eos_id], 1)):
        on_it = f" with the adapter {adapter}" if adapter else ""
        raise PolicyError(
            f"policy.model: {base}{on_it} holds weights that are NaN or infinite, and computes no "
            "answer; copy or download it again, or take an earlier checkpoint"
        )


def load_tokenizer(recipe: PolicyConfig) -> ChatTokenizer:
    """Load the tokenizer of a recipe's model alone.

    Raises:
        PolicyError: It cannot be loaded; the message says what to do.
    """
    quieten_libraries()
    from transformers import AutoTokenizer

    base = find_weights(locate_model(recipe.model)).base
    with _explaining(f"the tokenizer of {recipe.model} could not be loaded", base):
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=recipe.trust_remote_code)
        tokenizer.chat_template = tokenizer.chat_template or _processor_template(base)
    return ChatTokenizer(tokenizer)


def open_tokenizer(
    recipe: Recipe, *, with_model: bool = True
) -> tuple[Recipe, ChatTokenizer, list[str]]:
    """Load the tokenizer and adapt the recipe's prompts to its chat template; log each change.

    Args:
        recipe: Its policy, protocol and rollout sections are read.
        with_model: Whether the model is loaded later, so that its back end is imported first.

    Returns:
        The adapted recipe, the tokenizer, and the changes as lines.

    Raises:
        PolicyError: The tokenizer or its chat template cannot be used.
    """
    if with_model:
        open_backend(recipe.policy, recipe.rollout)
    chat_tokenizer = load_tokenizer(recipe.policy)
    recipe, notes = fit_recipe(recipe, chat_tokenizer)
    for note in notes:
        logger.warning(note)
    return recipe, chat_tokenizer, notes


def _processor_template(base: str) -> str | None:
    """Return the template in chat_template.json, which only transformers' processors read."""
    from transformers.utils import cached_file

    try:
        path = cached_file(base, "chat_template.json")
    except OSError:
        return None
    return str(json.loads(Path(path).read_text(encoding="utf-8"))["chat_template"])


def quieten_imports() -> None:
    """Suppress messages that libraries print while they are imported."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("torch.utils._pytree", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _fit_to_model(
    recipe: PolicyConfig, base: str, adapters: Sequence[StoredAdapter]
) -> PolicyConfig:
    """Resolve `target_modules`, and check lengths and adapters against the model.

    Rows longer than the model's positions are refused: Unsloth would rescale the positions of all
    rows, and transformers would use positions that the model was not trained on.
    """
    meta_model = MetaModel(base, trust_remote_code=recipe.trust_remote_code)
    most = meta_model.positions
    if most and recipe.max_seq_length > most:
        raise PolicyError(
            f"policy.max_seq_length is {recipe.max_seq_length}, and {recipe.model} has positions "
            f"for {most} tokens; use --set policy.max_seq_length={most}, or less"
        )
    for adapter in adapters:
        meta_model.require_fit(adapter)
    return meta_model.choose_modules(recipe)


@contextmanager
def _explaining(what: str, base: str) -> Iterator[None]:
    """Turn errors of libraries about a model into one line.

    Args:
        what: What failed.
        base: Folder or Hub id.

    Raises:
        PolicyError: With the cause, as far as it can be determined.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of pickles that it refuses
            yield
    except RsearchError:
        raise
    except Exception as error:  # truncated files raise anything
        first = first_line(error)
        if first.endswith(":"):
            first = " ".join(str(error).split())[:200]
        if "trust_remote_code" in str(error):
            raise PolicyError(
                f"policy.model: {base} comes with its own Python code, which only runs with "
                "--trust-remote-code; read the code before you allow it"
            ) from error
        if "Weights only load failed" in str(error):
            raise PolicyError(
                f"policy.model: {base} holds its weights as a pickle with more than weights in it, "
                "which is not opened; take the model's safetensors"
            ) from error
        is_remote = not Path(base).is_dir()
        if is_remote:
            _check_repository(base)
        if "backend tokenizer" in first:
            raise PolicyError(
                f"policy.model: {base} has no tokenizer that can be read: there is no "
                "tokenizer.json in it (nor a tokenizer.model, or a vocab.json with merges.txt)"
            ) from error
        hint = ""
        if is_remote and isinstance(error, OSError):
            hint = " (give a model folder with --model DIR if the Hub cannot be reached)"
        raise PolicyError(f"policy.model: {what}: {first}{hint}") from error


def _check_repository(repo: str) -> None:
    """Explain what is wrong with a Hub repository, from the local cache or the Hub itself.

    Raises:
        PolicyError: A file that was downloaded is broken, or there are GGUF files only.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        folder = None
    if folder is not None:
        check_files(folder)
    if constants.HF_HUB_OFFLINE:
        return
    try:
        names = HfApi().list_repo_files(repo)
    except (OSError, ValueError):  # the original error says why
        return
    if (problem := describe_gguf(repo, names)) is not None:
        raise PolicyError(problem)


def _load(backend: str, path: str, recipe: PolicyConfig, seed: int, rollout: RolloutConfig) -> Any:
    if backend == "unsloth":
        from rsearch_cli.policy.unsloth_backend import load_model as load_with_unsloth

        share = rollout.vllm_memory_share if rollout.engine == "vllm" else None
        return load_with_unsloth(path, recipe, seed, share)
    from rsearch_cli.policy.transformers_backend import load_model

    return load_model(path, recipe, seed)
