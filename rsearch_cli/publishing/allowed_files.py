"""Allow-list of the files that may be published, and checked copies of them.

Only regular files inside the run folder or the base model are copied, and only under the names
listed here; links, FIFOs and hard links are refused. `adapter_config.json` is written anew rather
than copied, because it can name arbitrary paths.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rsearch_cli.errors import PolicyError, PublishUnsafe, RunFolderError
from rsearch_cli.policy.adapter import StoredAdapter
from rsearch_cli.policy.meta_model import MetaModel
from rsearch_cli.policy.resolve import BASE, MANIFEST
from rsearch_cli.policy.weight_files import check_model_folder, read_header
from rsearch_cli.publishing.base_model import BaseWeights
from rsearch_cli.runs.confined_paths import copy_own
from rsearch_cli.runs.files import ADAPTER, ADAPTER_CONFIG, ADAPTER_WEIGHTS, RECIPE
from rsearch_cli.runs.json_text import dump_json

CARD = "README.md"
PLOT = "reward.png"
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
_AT_ROOT = (RECIPE, MANIFEST, PLOT)
_FOLDERS = (ADAPTER, BASE, ".")
# In bytes. The largest vocabularies are about 40 MB. Weights have no limit: `check_weights`
# compares their size with their header.
_TOKENIZER_LIMIT = 200_000_000
_NO_LIMIT = 1 << 62


def stage_tokenizer(adapter: Path, folder: Path) -> None:
    """Copy the run's tokenizer and chat template.

    Raises:
        PublishUnsafe: One of the files is not a regular file of the run.
    """
    for name in TOKENIZER:
        _copy(adapter, name, folder, _TOKENIZER_LIMIT)


def stage_adapter(adapter: StoredAdapter, base: BaseWeights, folder: Path) -> None:
    """Copy an adapter's weights and write a configuration that names the published base.

    Raises:
        PublishUnsafe: The weights are not a regular file of the run, or the adapter uses features
            that rsearch does not train.
    """
    if adapter.variants:
        raise PublishUnsafe(
            f"the adapter {adapter.folder} uses {', '.join(adapter.variants)}, which rsearch does "
            "not train; publish it with the tool that made it"
        )
    folder.mkdir(exist_ok=True)
    _copy(adapter.folder, ADAPTER_WEIGHTS, folder, _NO_LIMIT)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        # PEFT cannot resolve a base in `base/` by name; the card's code passes its location.
        "base_model_name_or_path": base.hub_id,
        "revision": None,
        "r": adapter.r,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "target_modules": adapter.names,
        "bias": "none",
        "inference_mode": True,
    }
    text = dump_json(settings, indent=2) + "\n"
    (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")


def stage_base(model: Path, folder: Path) -> None:
    """Copy a bundled base model.

    Raises:
        PublishUnsafe: One of its files is a link to somewhere outside the model.
    """
    root = _own_folder(model)
    if not model.resolve().is_relative_to(root):
        raise PublishUnsafe(f"{model} links to a place outside; replace it with a plain copy")
    folder.mkdir()
    shards = [path.name for path in model.iterdir() if _SHARD.fullmatch(path.name)]
    for name in (*_MODEL, *TOKENIZER, *shards):
        real = (model / name).resolve()
        if not (model / name).exists():
            continue
        if not (real.is_relative_to(root) and real.is_file()):
            raise PublishUnsafe(
                f"{model / name} links to a place outside {root}; replace it with a plain copy"
            )
        shutil.copyfile(real, folder / name)


def _own_folder(model: Path) -> Path:
    """Return the folder that a model's files may lie in.

    For a model in the Hub's cache that is its repository, where snapshots link to blobs; for any
    other it is the folder itself, which may not be a link.
    """
    from huggingface_hub import constants

    folder, cache = model.parent.resolve() / model.name, Path(constants.HF_HUB_CACHE).resolve()
    inside = folder.is_relative_to(cache) and folder.relative_to(cache).parts
    return cache / inside[0] if inside else folder


def refuse_unknown(names: Iterable[str]) -> None:
    """Check staged file names against the allow-list.

    Raises:
        PublishUnsafe: A file is not on the list.
    """
    known = {*TOKENIZER, *_MODEL, ADAPTER_CONFIG, ADAPTER_WEIGHTS}
    for name in names:
        path = Path(name)
        inside = str(path.parent) in _FOLDERS and (
            path.name in known or _SHARD.fullmatch(path.name)
        )
        at_root = path.name == name and (name in _AT_ROOT or _GGUF.fullmatch(name))
        if not (inside or at_root):
            raise PublishUnsafe(f"{name} is not a file that rsearch publishes; nothing uploaded")


def check_adapter(adapter: StoredAdapter, base: BaseWeights) -> None:
    """Load the adapter the way a downloader will, with the configuration that is published.

    Raises:
        PublishUnsafe: It is broken or incomplete, or does not fit the base.
        OSError: The base's configuration cannot be read.
        ValueError: transformers does not know the base's architecture.
    """
    with tempfile.TemporaryDirectory(prefix="rsearch-push-") as scratch:
        stage_adapter(adapter, base, Path(scratch))
        try:
            model = MetaModel(base.path, trust_remote_code=base.trust_remote_code)
            model.require_fit(adapter)
            model.load(Path(scratch))
        except PolicyError as error:
            raise PublishUnsafe(
                f"the adapter {adapter.folder} cannot be loaded: {error}; nothing uploaded"
            ) from error


def check_weights(folder: Path) -> None:
    """Open all staged weight files.

    Raises:
        PublishUnsafe: One of them is broken.
    """
    try:
        for model in (folder, folder / BASE):
            if (model / "config.json").is_file():
                check_model_folder(model)
        for adapter in folder.rglob(ADAPTER_WEIGHTS):
            read_header(adapter)
        for gguf in folder.glob("*.gguf"):
            with gguf.open("rb") as file:
                if file.read(4) != b"GGUF":
                    raise PolicyError(f"{gguf} is not a GGUF file")
    except PolicyError as error:
        raise PublishUnsafe(f"the staged weights cannot be loaded: {error}") from error


def _copy(source: Path, name: str, folder: Path, limit: int) -> None:
    if not (source / name).is_symlink() and not (source / name).exists():
        return
    try:
        copy_own(source, name, folder / name, limit)
    except RunFolderError as error:
        raise PublishUnsafe(f"{error}; nothing uploaded") from error
