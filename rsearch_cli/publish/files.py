"""The files of a push, taken from the run and from its base one by one.

Only files that are named here leave the machine, only as regular files of the folder they are
expected in, and an adapter's settings are written anew. What somebody has put a link, a FIFO or a
second name of another file for is refused.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rsearch_cli.errors import PolicyError, PublishUnsafe, RunFolderError
from rsearch_cli.policy.adapter import CONFIG, WEIGHTS, StoredAdapter
from rsearch_cli.policy.meta_model import MetaModel
from rsearch_cli.policy.resolve import BASE, MANIFEST
from rsearch_cli.policy.weight_files import check_model_folder, read_header
from rsearch_cli.publish.base import Base
from rsearch_cli.publish.method import CURVE
from rsearch_cli.runs.confined_paths import copy_own
from rsearch_cli.runs.files import ADAPTER, RECIPE
from rsearch_cli.runs.json_text import dump_json

CARD = "README.md"
TOKENIZER = (
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
_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?", re.ASCII)
_GGUF = re.compile(r"[\w.-]+\.gguf", re.ASCII)
_AT_ROOT = (RECIPE, MANIFEST, CURVE)
_FOLDERS = (ADAPTER, BASE, ".")
# Bytes. The largest vocabularies have 40 MB; weights are checked against their own header.
_MOST = 200_000_000
_ANY_SIZE = 1 << 62


def stage_tokenizer(adapter: Path, folder: Path) -> None:
    """Copy tokenizer and chat template as the run has them.

    Raises:
        PublishUnsafe: One of them is no plain file of the run.
    """
    for name in TOKENIZER:
        _copy(adapter, name, folder, _MOST)


def stage_adapter(adapter: StoredAdapter, base: Base, folder: Path) -> None:
    """Copy an adapter's weights, and write its settings with a base that a stranger can load.

    Raises:
        PublishUnsafe: The weights are no plain file of the run, or there is more to the adapter
            than rsearch trains.
    """
    if adapter.variants:
        raise PublishUnsafe(
            f"the adapter {adapter.folder} was made with {', '.join(adapter.variants)}, which "
            "rsearch does not train; push the folder with the tool that made it"
        )
    folder.mkdir(exist_ok=True)
    _copy(adapter.folder, WEIGHTS, folder, _ANY_SIZE)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        # A base in `base/` has no name that PEFT could resolve: the card's code says where it is.
        "base_model_name_or_path": base.public,
        "revision": None,
        "r": adapter.r,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "target_modules": adapter.names,
        "bias": "none",
        "inference_mode": True,
    }
    text = dump_json(settings, indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def stage_base(model: Path, folder: Path) -> None:
    """Copy a base that goes along, whole: it is a model folder of its own.

    Raises:
        PublishUnsafe: One of its files leads out of it.
    """
    # The Hub's cache keeps files beside its snapshots, and package managers share them.
    root = model.resolve()
    root = root.parent.parent if root.parent.name == "snapshots" else root
    folder.mkdir()
    shards = [path.name for path in model.iterdir() if _SHARD.fullmatch(path.name)]
    for name in (*_MODEL, *TOKENIZER, *shards):
        real = (model / name).resolve()
        if not (model / name).exists():
            continue
        if not (real.is_relative_to(root) and real.is_file()):
            raise PublishUnsafe(
                f"{model / name} leads out of {root}; put a plain copy in its place"
            )
        with real.open("rb") as source, (folder / name).open("wb") as copy:
            while data := source.read(1 << 20):
                copy.write(data)


def refuse_unknown(names: Iterable[str]) -> None:
    """Check that there is nothing among staged files but what a push is made of.

    Raises:
        PublishUnsafe: Naming the first other file.
    """
    known = {*TOKENIZER, *_MODEL, CONFIG, WEIGHTS}
    for name in names:
        path = Path(name)
        inside = str(path.parent) in _FOLDERS and (
            path.name in known or _SHARD.fullmatch(path.name)
        )
        at_root = path.name == name and (name in _AT_ROOT or _GGUF.fullmatch(name))
        if not (inside or at_root):
            raise PublishUnsafe(f"{name} is no file that a push is made of; nothing was uploaded")


def check_adapter(adapter: StoredAdapter, base: Base) -> None:
    """Load an adapter as one who downloads it does, with the settings that are published.

    Raises:
        PublishUnsafe: It is broken or not whole, or does not fit the base.
        OSError: The configuration of the base cannot be had.
        ValueError: It is none that transformers knows.
    """
    with tempfile.TemporaryDirectory(prefix="rsearch-push-") as scratch:
        stage_adapter(adapter, base, Path(scratch))
        try:
            skeleton = MetaModel(base.path, trust_remote_code=base.trust_remote_code)
            skeleton.require_fit(adapter)
            skeleton.load(Path(scratch))
        except PolicyError as error:
            raise PublishUnsafe(
                f"the adapter {adapter.folder} cannot be loaded: {error}; nothing was uploaded"
            ) from error


def check_weights(folder: Path) -> None:
    """Open all staged weights.

    Raises:
        PublishUnsafe: Something is broken.
    """
    try:
        for model in (folder, folder / BASE):
            if (model / "config.json").is_file():
                check_model_folder(model)
        for adapter in folder.rglob(WEIGHTS):
            read_header(adapter)
        for gguf in folder.glob("*.gguf"):
            with gguf.open("rb") as file:
                if file.read(4) != b"GGUF":
                    raise PolicyError(f"{gguf} is no GGUF file")
    except PolicyError as error:
        raise PublishUnsafe(f"what would be pushed cannot be loaded: {error}") from error


def _copy(source: Path, name: str, folder: Path, most: int) -> None:
    if not (source / name).is_symlink() and not (source / name).exists():
        return
    try:
        copy_own(source, name, folder / name, most)
    except RunFolderError as error:
        raise PublishUnsafe(f"{error}; nothing was uploaded") from error
