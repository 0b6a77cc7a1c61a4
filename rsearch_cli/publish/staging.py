"""Staging: all files of a push in one folder, as they will lie on the Hub.

Place in the path: between the run folder and the upload. Only files that are named here leave the
run folder. At the root lies what loaders look for: the merged model if there is one, else the
adapter; beside a merged model, or a base that goes along, the adapter lies in `adapter/`. On
failure: a folder that nobody could load is a `PublishUnsafe`; merging and converting raise their
own errors.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsearch_cli import __version__
from rsearch_cli.errors import PolicyError, PublishError, PublishUnsafe
from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.prompts import fit_recipe
from rsearch_cli.policy.resolve import BASE, MANIFEST
from rsearch_cli.protocol.prompt import build_messages
from rsearch_cli.publish.base import (
    Base,
    load_config,
    read_licence,
    require_full_precision,
    require_loadable,
    unreadable,
)
from rsearch_cli.publish.card import write_card
from rsearch_cli.publish.contents import Contents, Findings
from rsearch_cli.publish.curve import draw_curve
from rsearch_cli.publish.files import (
    CARD,
    check_adapter,
    check_weights,
    refuse_unknown,
    stage_adapter,
    stage_base,
    stage_tokenizer,
)
from rsearch_cli.publish.gguf import convert, find_converter
from rsearch_cli.publish.merging import PROMPTS, MergeCheck, check_merge, merge_adapter
from rsearch_cli.publish.method import CURVE
from rsearch_cli.publish.record import RunRecord, public_recipe
from rsearch_cli.recipe.documents import dump_document
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.files import RECIPE
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.types import Question

KINDS = ("adapter", "merged", "gguf")
"""What can be pushed."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Staged:
    """A folder that is ready to be uploaded.

    Attributes:
        folder: Where the files lie.
        files: Path in the repository to its size in bytes.
        card: Text of the card.
        merge: What the comparison of merged weights found, if there are any.
    """

    folder: Path
    files: dict[str, int]
    card: str
    merge: MergeCheck | None


def check_request(kinds: Collection[str], base: Base) -> None:
    """See that what is asked for can be made, before anything slow starts.

    Raises:
        PublishError: Of the narrowest kind.
    """
    if "adapter" in kinds:
        require_loadable(base)
    if "gguf" in kinds:
        find_converter()
    if {"merged", "gguf"} & set(kinds):
        require_full_precision(base)


def stage(
    record: RunRecord, kinds: Collection[str], base: Base, repo_id: str, folder: Path, say: Say
) -> Staged:
    """Put all files of a push into a folder, which is emptied first.

    Args:
        record: The run.
        kinds: Some of `KINDS`.
        base: The run's base model.
        repo_id: `user/name`, as the card will tell it.
        folder: Where to.
        say: Told what is under way.

    Raises:
        PublishError: Of the narrowest kind.
    """
    try:
        check_adapter(record.weights, base)
    except (OSError, ValueError) as error:
        raise unreadable(base, error) from error
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    record = replace(record, recipe=trained_recipe(record))
    adapter, merged = "adapter" in kinds, "merged" in kinds
    if adapter or merged:
        _stage_texts(record.adapter, base, folder)
    merge = gguf = None
    if merged or "gguf" in kinds:
        with tempfile.TemporaryDirectory(dir=record.folder, prefix=".merging-") as scratch:
            model = folder if merged else Path(scratch)
            merge = _stage_merged(record, base, model, say)
            if "gguf" in kinds:
                say("converting to GGUF")
                _stage_texts(record.adapter, base, model)
                name = repo_id.rpartition("/")[2]
                gguf = convert(find_converter(), model, folder, name).name
    along = adapter and base.goes_along
    contents = Contents(repo_id, adapter, merged, gguf, record.weights.r, along)
    if adapter:
        stage_adapter(record.weights, base, folder / contents.adapter_folder)
    if along:
        stage_base(Path(base.path), folder / BASE)
    has_curve = draw_curve(record.rows, folder / CURVE)
    findings = Findings(contents, base, read_licence(base), merge, has_curve)
    card = write_card(record, findings)
    (folder / CARD).write_text(card, encoding="utf-8")
    recipe = dump_document(public_recipe(record.recipe, base.public))
    (folder / RECIPE).write_text(recipe, encoding="utf-8")
    _write_manifest(folder, contents)
    _check_complete(folder, contents, base)
    refuse_unknown(_sizes(folder))
    check_weights(folder)
    return Staged(folder, _sizes(folder), card, merge)


def render_prompts(record: RunRecord, tokenizer: Any) -> list[str]:
    """The first questions of the run as the policy saw them, at most `PROMPTS`."""
    rules, turns = record.recipe.protocol, record.recipe.rollout.max_turns
    return [
        str(
            tokenizer.apply_chat_template(
                build_messages(Question("", text, ("",)), rules, turns),
                tokenize=False,
                add_generation_prompt=True,
            )
        )
        for text in record.questions[:PROMPTS]
    ]


def trained_recipe(record: RunRecord) -> Recipe:
    """The run's recipe with the prompts that its chat template could hold, so those of training."""
    from transformers import AutoTokenizer

    custom = record.recipe.policy.trust_remote_code
    try:
        tokenizer = AutoTokenizer.from_pretrained(record.adapter, trust_remote_code=custom)
        chat_tokenizer = ChatTokenizer(tokenizer)
    except (OSError, ValueError, PolicyError):
        return record.recipe  # `_check_complete` says what is missing
    return fit_recipe(record.recipe, chat_tokenizer)[0]


def _stage_merged(record: RunRecord, base: Base, folder: Path, say: Say) -> MergeCheck:
    from transformers import AutoTokenizer

    say("merging the adapter into the base")
    merge_adapter(base, record.weights, folder, record.dtype)
    say(f"comparing greedy answers on up to {PROMPTS} prompts")
    tokenizer = AutoTokenizer.from_pretrained(
        record.adapter, trust_remote_code=base.trust_remote_code
    )
    prompts = render_prompts(record, tokenizer)
    return check_merge(base, record.weights, folder, prompts, record.dtype)


def _stage_texts(adapter: Path, base: Base, folder: Path) -> None:
    """Tokenizer and chat template as trained with, and the base's generation settings."""
    from transformers import GenerationConfig

    stage_tokenizer(adapter, folder)
    try:
        generation = GenerationConfig.from_pretrained(base.path)
    except OSError:
        generation = GenerationConfig.from_model_config(load_config(base))
    generation.save_pretrained(folder)


def _write_manifest(folder: Path, contents: Contents) -> None:
    manifest = {
        "rsearch": __version__,
        "base": BASE if contents.base and not contents.merged else None,
        "files": sorted([*_sizes(folder), MANIFEST]),
    }
    (folder / MANIFEST).write_text(dump_json(manifest, indent=2) + "\n", encoding="utf-8")


def _check_complete(folder: Path, contents: Contents, base: Base) -> None:
    """Refuse a folder that could not be loaded from an empty cache.

    Raises:
        PublishUnsafe: Naming what is missing.
    """
    needed = [CARD, RECIPE, MANIFEST]
    if contents.adapter:
        beside = contents.adapter_folder
        needed += [str(Path(beside, "adapter_config.json"))]
        needed += [str(Path(beside, "adapter_model.safetensors"))]
    if contents.merged:
        needed += ["config.json", *_weight_files(folder)]
    if contents.adapter or contents.merged:
        needed += ["tokenizer_config.json", "generation_config.json"]
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise PublishUnsafe(f"what would be pushed lacks {', '.join(missing)}; train again")
    if contents.adapter or contents.merged:
        _check_chat_template(folder, base)


def _weight_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


def _check_chat_template(folder: Path, base: Base) -> None:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=base.trust_remote_code)
    except (OSError, ValueError) as error:
        raise PublishError(f"the tokenizer to be pushed cannot be loaded: {error}") from error
    if tokenizer.chat_template is None:
        raise PublishUnsafe("the tokenizer to be pushed has no chat template; train again")


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
