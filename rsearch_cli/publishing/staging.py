"""Assemble all files of a repository in one folder, as they will be on the Hub.

Loaders look for the model at the root: that is the merged model if there is one, else the adapter.
Beside a merged model or a bundled base, the adapter is in `adapter/`.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsearch_cli import __version__
from rsearch_cli.errors import PolicyError, PublishError, PublishUnsafe
from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.prompts import fit_recipe
from rsearch_cli.policy.resolve import BASE, MANIFEST
from rsearch_cli.protocol.prompt import build_messages
from rsearch_cli.publishing.allowed_files import (
    CARD,
    PLOT,
    check_adapter,
    check_weights,
    refuse_unknown,
    stage_adapter,
    stage_base,
    stage_tokenizer,
)
from rsearch_cli.publishing.base_model import (
    BaseWeights,
    load_config,
    read_licence,
    require_full_precision,
    require_loadable,
    unreadable,
)
from rsearch_cli.publishing.facts import Repository, RunFacts, public_recipe
from rsearch_cli.publishing.gguf import convert, find_converter
from rsearch_cli.publishing.merge import PROMPTS, MergeCheck, check_merge, merge_adapter
from rsearch_cli.publishing.model_card import write_card
from rsearch_cli.publishing.reward_plot import plot_reward
from rsearch_cli.recipe.documents import dump_document
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, RECIPE
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.types import Question

KINDS = ("adapter", "merged", "gguf")
"""What can be published."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StagedRepository:
    """A folder that is ready for upload.

    Attributes:
        folder: Folder of the files.
        files: Size in bytes by path in the repository.
        card: Text of the model card.
        merge: Result of comparing the merged weights; None without merging.
    """

    folder: Path
    files: dict[str, int]
    card: str
    merge: MergeCheck | None


def check_request(kinds: Collection[str], base: BaseWeights) -> None:
    """Check that the requested kinds can be made, before any slow work.

    Raises:
        PublishError: Others could not load the base, llama.cpp's converter is missing, or the base
            is stored quantised.
    """
    if "adapter" in kinds:
        require_loadable(base)
    if "gguf" in kinds:
        find_converter()
    if {"merged", "gguf"} & set(kinds):
        require_full_precision(base)


def stage(
    run: RunFacts, kinds: Collection[str], base: BaseWeights, repo_id: str, folder: Path
) -> StagedRepository:
    """Write all files of the repository to a folder, which is emptied first.

    Args:
        run: The run.
        kinds: Some of `KINDS`.
        base: The run's base model.
        repo_id: `user/name`, as printed on the card.
        folder: Folder to write to.

    Raises:
        PublishError: Of the narrowest kind.
    """
    try:
        check_adapter(run.weights, base)
    except (OSError, ValueError) as error:
        raise unreadable(base, error) from error
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = replace(run, recipe=trained_recipe(run))
    adapter, merged = "adapter" in kinds, "merged" in kinds
    if adapter or merged:
        _stage_tokenizer_and_config(run.adapter, base, folder)
    merge = gguf = None
    if merged or "gguf" in kinds:
        with tempfile.TemporaryDirectory(dir=run.folder, prefix=".merging-") as scratch:
            model = folder if merged else Path(scratch)
            merge = _stage_merged(run, base, model)
            if "gguf" in kinds:
                logger.info("converting to GGUF")
                _stage_tokenizer_and_config(run.adapter, base, model)
                name = repo_id.rpartition("/")[2]
                gguf = convert(find_converter(), model, folder, name).name
    has_plot = plot_reward(run.rows, folder / PLOT)
    repository = Repository(
        repo_id, base, run.weights.r, adapter, merged, gguf, read_licence(base), merge, has_plot
    )
    if adapter:
        stage_adapter(run.weights, base, folder / repository.adapter_folder)
    if repository.bundles_base:
        stage_base(Path(base.path), folder / BASE)
    card = write_card(run, repository)
    (folder / CARD).write_text(card, encoding="utf-8")
    recipe = dump_document(public_recipe(run.recipe, base.hub_id))
    (folder / RECIPE).write_text(recipe, encoding="utf-8")
    _write_manifest(folder, repository)
    _require_complete(folder, repository)
    refuse_unknown(_sizes(folder))
    check_weights(folder)
    return StagedRepository(folder, _sizes(folder), card, merge)


def render_prompts(run: RunFacts, tokenizer: Any) -> list[str]:
    """Render the run's first `PROMPTS` questions as the policy saw them."""
    rules, turns = run.recipe.protocol, run.recipe.rollout.max_turns
    return [
        str(
            tokenizer.apply_chat_template(
                build_messages(Question("", text, ("",)), rules, turns),
                tokenize=False,
                add_generation_prompt=True,
            )
        )
        for text in run.questions[:PROMPTS]
    ]


def trained_recipe(run: RunFacts) -> Recipe:
    """Return the run's recipe with its prompts adapted to the chat template, as in training."""
    from transformers import AutoTokenizer

    custom = run.recipe.policy.trust_remote_code
    try:
        tokenizer = AutoTokenizer.from_pretrained(run.adapter, trust_remote_code=custom)
        chat_tokenizer = ChatTokenizer(tokenizer)
    except (OSError, ValueError, PolicyError):
        return run.recipe  # `_require_complete` reports the missing file
    return fit_recipe(run.recipe, chat_tokenizer)[0]


def _stage_merged(run: RunFacts, base: BaseWeights, folder: Path) -> MergeCheck:
    from transformers import AutoTokenizer

    logger.info("merging the adapter into the base model")
    merge_adapter(base, run.weights, folder, run.dtype)
    logger.info("comparing greedy continuations of up to %d prompts", PROMPTS)
    tokenizer = AutoTokenizer.from_pretrained(run.adapter, trust_remote_code=base.trust_remote_code)
    prompts = render_prompts(run, tokenizer)
    return check_merge(base, run.weights, folder, prompts, run.dtype)


def _stage_tokenizer_and_config(adapter: Path, base: BaseWeights, folder: Path) -> None:
    """Stage the tokenizer and chat template of the run, and the base's generation settings."""
    from transformers import GenerationConfig

    stage_tokenizer(adapter, folder)
    try:
        generation = GenerationConfig.from_pretrained(base.path)
    except OSError:
        generation = GenerationConfig.from_model_config(load_config(base))
    generation.save_pretrained(folder)


def _write_manifest(folder: Path, repository: Repository) -> None:
    manifest = {
        "rsearch": __version__,
        "base": BASE if repository.bundles_base and not repository.merged else None,
        "files": sorted([*_sizes(folder), MANIFEST]),
    }
    (folder / MANIFEST).write_text(dump_json(manifest, indent=2) + "\n", encoding="utf-8")


def _require_complete(folder: Path, repository: Repository) -> None:
    """Check that the folder can be loaded without anything that only this machine has.

    Raises:
        PublishUnsafe: A file is missing.
    """
    needed = [CARD, RECIPE, MANIFEST]
    if repository.adapter:
        parent = Path(repository.adapter_folder)
        needed += [str(parent / ADAPTER_CONFIG), str(parent / ADAPTER_WEIGHTS)]
    if repository.merged:
        needed += ["config.json", *_weight_files(folder)]
    if repository.adapter or repository.merged:
        needed += ["tokenizer_config.json", "generation_config.json"]
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise PublishUnsafe(f"the repository would lack {', '.join(missing)}; train again")
    if repository.adapter or repository.merged:
        _require_chat_template(folder, repository.base)


def _weight_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


def _require_chat_template(folder: Path, base: BaseWeights) -> None:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=base.trust_remote_code)
    except (OSError, ValueError) as error:
        raise PublishError(f"the tokenizer to be published cannot be loaded: {error}") from error
    if tokenizer.chat_template is None:
        raise PublishUnsafe("the tokenizer to be published has no chat template; train again")


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
