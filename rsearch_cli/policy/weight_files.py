"""Check weight files and model folders before anything is loaded from them.

A truncated download, a git-lfs pointer or an unsupported format becomes one line that says what the
file is and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rsearch_cli.errors import PolicyError
from rsearch_cli.runs.json_text import read_json_object

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"

# Further files that git-lfs may store.
_BESIDE = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "chat_template.jinja", "generation_config.json"),
)
_POINTER = b"version https://git-lfs"
_HEAD = 64
# What a file is by its first bytes, and what to do.
_KINDS = (
    (_POINTER, "is a git-lfs pointer, not the file itself; run `git lfs pull` in its folder"),
    (b"GGUF", "is a GGUF file under another name; take the model's safetensors"),
    (b"PK\x03\x04", "is a pickle or an archive under another name; take the model's safetensors"),
    (b"\x80", "is a pickle under another name; take the model's safetensors"),
    (b"<", "is a web page, not a file of weights; download it again"),
)
_AGAIN = "copy or download it again"
# Quantised formats that transformers loads and PEFT trains.
_LOADED = ("bitsandbytes",)
_GGUF_ADVICE = (
    "rsearch loads safetensors: take the repository that it was made from, or serve it with "
    "llama-server -m FILE and name that with --endpoint http://localhost:8080/v1"
)


class Tensor(NamedTuple):
    """One tensor of a safetensors file: its type, such as `BF16`, and its dimensions."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, after checking that the file is complete.

    Args:
        path: A regular file, or a link to one as in the Hub's cache.

    Raises:
        PolicyError: Another kind of file, unreadable, or incomplete.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {n: Tensor(t.get_dtype(), tuple(t.get_shape())) for n, t in tensors.items()}
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).rpartition("header: ")[2]
    try:
        with path.open("rb") as file:
            head, size = file.read(_HEAD), path.stat().st_size
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}") from error
    if not size:
        raise PolicyError(f"{path} is empty; {_AGAIN}")
    for magic, problem in _KINDS:
        if head.startswith(magic) and head[8:9] != b"{":
            raise PolicyError(f"{path} {problem}")
    if reason.startswith(("invalid header length", "header too small")):
        raise PolicyError(f"{path} is cut off within its first {size:,} bytes; {_AGAIN}")
    if reason.startswith("incomplete metadata"):
        raise PolicyError(
            f"{path} is cut off: its {size:,} bytes are not those that its header describes; "
            f"{_AGAIN}"
        )
    raise PolicyError(f"{path} is not a safetensors file: its header is broken ({reason})")


def check_model_folder(folder: Path) -> None:
    """Refuse a model folder that cannot be loaded, by its files alone.

    Raises:
        PolicyError: With the file, what it is and what to do.
    """
    config = read_json(folder / CONFIG)
    refuse_quantised(str(folder), config.get("quantization_config") or config.get("quantization"))
    _require_weights(folder)
    check_files(folder)


def check_files(folder: Path) -> None:
    """Refuse a folder with a broken model file; files may be missing.

    Raises:
        PolicyError: With the file, what it is and what to do.
    """
    for name in (CONFIG, *_BESIDE):
        if (folder / name).is_file():
            refuse_pointer(folder / name)
    for weights in sorted(folder.glob("*.safetensors")):
        read_header(weights)


def refuse_quantised(model: str, settings: object) -> None:
    """Refuse weights in a quantised format that is not supported.

    Args:
        model: For the message.
        settings: `quantization_config` of the model's config.json, or None.

    Raises:
        PolicyError: With the name of the format.
    """
    if not settings:
        return
    found = settings.get("quant_method") if isinstance(settings, Mapping) else None
    method = str(getattr(found, "value", found) or "")
    if method not in _LOADED:
        named = f" by {method.upper()[:40]}" if method else ""
        raise PolicyError(
            f"policy.model: {model} is stored quantised{named}, in a form that rsearch does not "
            "load; take the model that it was made from (policy.load_in_4bit quantises "
            "it), or serve it and name the server with --endpoint"
        )


def refuse_pointer(path: Path) -> None:
    """Refuse a git-lfs pointer in place of the real file.

    Raises:
        PolicyError: It is a pointer, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_POINTER))
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}") from error
    if head == _POINTER:
        raise PolicyError(f"{path} {_KINDS[0][1]}")


def refuse_file(path: Path) -> None:
    """Refuse a file where a model folder is expected.

    Raises:
        PolicyError: Always.
    """
    with path.open("rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    if is_gguf or path.suffix.lower() == ".gguf":
        raise PolicyError(f"policy.model: {path} is a GGUF file; {_GGUF_ADVICE}")
    raise PolicyError(
        f"policy.model: {path} is a file; give the folder that holds config.json, weights and "
        "tokenizer"
    )


def describe_gguf(where: str, names: Iterator[str] | list[str]) -> str | None:
    """Describe a model that consists of GGUF files only; None if it does not.

    Args:
        where: Folder or repository, for the message.
        names: Its files.
    """
    listed = list(names)
    ggufs = [name for name in listed if name.lower().endswith(".gguf")]
    if not ggufs or any(name.endswith((".safetensors", ".bin")) for name in listed):
        return None
    return f"policy.model: {where} holds GGUF files only, such as {ggufs[0]}; {_GGUF_ADVICE}"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model.

    Raises:
        PolicyError: The file cannot be read, is a git-lfs pointer or contains something else.
    """
    refuse_pointer(path)
    try:
        return read_json_object(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PolicyError(f"{path} cannot be read: {' '.join(reason.split())[:200]}") from error


def _require_weights(folder: Path) -> None:
    """Refuse a model folder without weights; pickles count, since torch reads them as data only."""
    index = folder / INDEX
    if not index.is_file():
        found = [path.name for path in folder.iterdir()]
        if (problem := describe_gguf(str(folder), found)) is not None:
            raise PolicyError(problem)
        if not any(name.endswith((".safetensors", ".bin")) for name in found):
            raise PolicyError(
                f"policy.model: {folder} holds no weights, there is no {WEIGHTS} in it; {_AGAIN}"
            )
        return
    placed = read_json(index).get("weight_map")
    names = sorted(set(map(str, placed.values()))) if isinstance(placed, dict) else []
    missing = [name for name in names if not (folder / name).is_file() or Path(name).name != name]
    if missing or not names:
        lacks = f"{missing[0]} is not there" if missing else "it names no file"
        raise PolicyError(f"policy.model: {index} cannot be used: {lacks}; {_AGAIN}")
