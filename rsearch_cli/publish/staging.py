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
from rsearch_cli.policy.prompts import fit_recipe
from rsearch_cli.policy.published import BASE, MANIFEST, RECIPE
from rsearch_cli.policy.tokenizing import Tokenizing
from rsearch_cli.protocol.prompt import build_messages
from rsearch_cli.publish.base import (
    Base,
    load_config,
    rank_of,
    read_licence,
    require_full_precision,
    require_loadable,
)
from rsearch_cli.publish.card import write_card
from rsearch_cli.publish.contents import Contents, Findings
from rsearch_cli.publish.curve import draw_curve
from rsearch_cli.publish.gguf import convert, find_converter
from rsearch_cli.publish.merging import PROMPTS, MergeCheck, check_merge, merge_adapter
from rsearch_cli.publish.method import CURVE
from rsearch_cli.publish.record import RunRecord, public_recipe
from rsearch_cli.recipe.loading import dump_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question

KINDS = ("adapter", "merged", "gguf")
"""What can be pushed."""

CARD = "README.md"
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_MODEL = ("config.json", "generation_config.json", CARD)

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
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    record = replace(record, recipe=trained_recipe(record))
    adapter, merged = "adapter" in kinds, "merged" in kinds
    if adapter or merged:
        _stage_tokenizer(record.adapter, base, folder)
    merge = gguf = None
    if merged or "gguf" in kinds:
        with tempfile.TemporaryDirectory(dir=record.folder, prefix=".merging-") as scratch:
            model = folder if merged else Path(scratch)
            merge = _stage_merged(record, base, model, say)
            if "gguf" in kinds:
                say("converting to GGUF")
                _stage_tokenizer(record.adapter, base, model)
                name = repo_id.rpartition("/")[2]
                gguf = convert(find_converter(), model, folder, name).name
    along = adapter and base.goes_along
    contents = Contents(repo_id, adapter, merged, gguf, rank_of(record.adapter), along)
    if adapter:
        _stage_adapter(record.adapter, base, folder / contents.adapter_folder)
    if along:
        _stage_base(Path(base.path), folder / BASE)
    has_curve = draw_curve(record.rows, folder / CURVE)
    findings = Findings(contents, base, read_licence(base), merge, has_curve)
    card = write_card(record, findings)
    (folder / CARD).write_text(card, encoding="utf-8")
    recipe = dump_recipe(public_recipe(record.recipe, base.public))
    (folder / RECIPE).write_text(recipe, encoding="utf-8")
    _write_manifest(folder, contents)
    _check_complete(folder, contents)
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

    try:
        tokenizing = Tokenizing(AutoTokenizer.from_pretrained(record.adapter))
    except (OSError, ValueError, PolicyError):
        return record.recipe  # `_check_complete` says what is missing
    return fit_recipe(record.recipe, tokenizing)[0]


def _stage_merged(record: RunRecord, base: Base, folder: Path, say: Say) -> MergeCheck:
    from transformers import AutoTokenizer

    say("merging the adapter into the base")
    merge_adapter(base.path, record.adapter, folder, record.dtype)
    say(f"comparing greedy answers on up to {PROMPTS} prompts")
    prompts = render_prompts(record, AutoTokenizer.from_pretrained(record.adapter))
    return check_merge(base.path, record.adapter, folder, prompts, record.dtype)


def _stage_tokenizer(adapter: Path, base: Base, folder: Path) -> None:
    """Tokenizer and chat template as trained with, and the base's generation settings."""
    from transformers import GenerationConfig

    for name in _TOKENIZER:
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, folder / name)
    try:
        generation = GenerationConfig.from_pretrained(base.path)
    except OSError:
        generation = GenerationConfig.from_model_config(load_config(base))
    generation.save_pretrained(folder)


def _stage_adapter(adapter: Path, base: Base, folder: Path) -> None:
    """Adapter weights, and their settings with a base that a stranger can load."""
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        raise PublishUnsafe(
            f"{adapter} holds no adapter_model.safetensors, and a pickle is not pushed; train "
            "again with this version"
        )
    folder.mkdir(exist_ok=True)
    shutil.copyfile(weights, folder / weights.name)
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    # A base in `base/` has no name that PEFT could resolve: the card's code and rsearch find it.
    settings |= {"base_model_name_or_path": base.public, "revision": None}
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")


def _stage_base(model: Path, folder: Path) -> None:
    """A base that goes along, whole: it is a model folder of its own."""
    folder.mkdir()
    weights = [path.name for path in model.glob("*.safetensors")]
    for name in (*_MODEL, *_TOKENIZER, *weights):
        if (model / name).is_file():
            shutil.copyfile(model / name, folder / name)


def _write_manifest(folder: Path, contents: Contents) -> None:
    manifest = {
        "rsearch": __version__,
        "base": BASE if contents.base and not contents.merged else None,
        "files": sorted([*_sizes(folder), MANIFEST]),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _check_complete(folder: Path, contents: Contents) -> None:
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
        _check_chat_template(folder)


def _weight_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


def _check_chat_template(folder: Path) -> None:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
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
