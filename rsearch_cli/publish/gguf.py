"""GGUF by llama.cpp's own converter, where it is installed.

Place in the path: a step of staging, after merging; a model folder comes in, one `.gguf` file goes
out. On failure: `ConverterMissing` says how to get the converter, before anything slow starts; a
conversion that fails is a `PublishError` with the converter's own last line.
"""

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
    """Where llama.cpp's converter is: in `LLAMA_CPP_DIR`, or on PATH.

    Raises:
        ConverterMissing: It is in neither; the message tells how to get it.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    beside = Path(folder).expanduser() / SCRIPT if folder else None
    if beside is not None and beside.is_file():
        return beside
    found = shutil.which(SCRIPT)
    if found is not None:
        return Path(found)
    looked = f"in {FOLDER_VARIABLE} {folder} or on PATH" if folder else "on PATH"
    raise ConverterMissing(
        f"--what gguf needs llama.cpp's {SCRIPT}, which is not {looked}; get it with: "
        "git clone --depth 1 https://github.com/ggml-org/llama.cpp && pip install gguf "
        f"sentencepiece && export {FOLDER_VARIABLE}=$PWD/llama.cpp"
    )


def convert(converter: Path, model: Path, target: Path, name: str) -> Path:
    """Convert a model folder to one GGUF file in the type that its weights are stored in.

    Args:
        converter: The script.
        model: Folder of the merged model with its tokenizer.
        target: Folder to write into.
        name: First part of the file's name; the type follows.

    Raises:
        PublishError: The converter failed or wrote nothing.
    """
    # `{ftype}` is the converter's own placeholder.
    outfile = target / f"{name}-{{ftype}}.gguf"
    done = subprocess.run(
        [
            sys.executable,
            str(converter),
            str(model),
            "--outtype",
            "auto",
            "--outfile",
            str(outfile),
        ],
        capture_output=True,
        text=True,
    )
    written = sorted(target.glob("*.gguf"))
    if done.returncode or len(written) != 1:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise PublishError(
            f"{converter.name} could not convert the merged model (exit code {done.returncode}): "
            f"{printable(last)}; llama.cpp knows a fixed list of architectures and tokenizers, "
            "push --what adapter,merged if this one is not among them"
        )
    return written[0]
