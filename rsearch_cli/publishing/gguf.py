"""GGUF conversion by llama.cpp's own script, if it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from rsearch_cli.errors import ConverterMissing, PublishError
from rsearch_cli.terminal import printable

SCRIPT = "convert_hf_to_gguf.py"
FOLDER_VARIABLE = "LLAMA_CPP_DIR"


def find_converter() -> Path:
    """Return the path of llama.cpp's converter, from `LLAMA_CPP_DIR` or PATH.

    Raises:
        ConverterMissing: It is in neither; the message contains the install command.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    configured = Path(folder).expanduser() / SCRIPT if folder else None
    if configured is not None and configured.is_file():
        return configured
    found = shutil.which(SCRIPT)
    if found is not None:
        return Path(found)
    places = f"in {FOLDER_VARIABLE} ({folder}) or on PATH" if folder else "on PATH"
    raise ConverterMissing(
        f"--what gguf needs llama.cpp's {SCRIPT}, which was not found {places}; install it with: "
        "git clone --depth 1 https://github.com/ggml-org/llama.cpp && pip install gguf "
        f"sentencepiece && export {FOLDER_VARIABLE}=$PWD/llama.cpp"
    )


def convert(converter: Path, model: Path, target: Path, name: str) -> Path:
    """Convert a model folder to one GGUF file, keeping the dtype of the stored weights.

    Args:
        converter: The script.
        model: Folder of the merged model with its tokenizer.
        target: Folder to write to.
        name: Stem of the file name; the dtype is appended.

    Raises:
        PublishError: The converter failed or wrote nothing.
    """
    # `{ftype}` is the converter's own placeholder.
    outfile = target / f"{name}-{{ftype}}.gguf"
    command = [sys.executable, converter, model, "--outtype", "auto", "--outfile", outfile]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    written = sorted(target.glob("*.gguf"))
    if done.returncode or len(written) != 1:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise PublishError(
            f"{converter.name} failed on the merged model (exit code {done.returncode}): "
            f"{printable(last)}; llama.cpp supports a fixed list of architectures and tokenizers; "
            "if this one is not among them, use --what adapter,merged"
        )
    return written[0]
