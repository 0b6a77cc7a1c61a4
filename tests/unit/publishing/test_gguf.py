"""llama.cpp's converter: found, missing, failing. A script stands in for it."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import ConverterMissing, PublishError
from rsearch_cli.publishing.gguf import SCRIPT, convert, find_converter

WORKS = """
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--outtype", choices=["f32", "f16", "bf16", "q8_0", "auto"])
parser.add_argument("--outfile")
given = parser.parse_args()
assert (given.model / "config.json").is_file()
pathlib.Path(given.outfile.replace("{ftype}", "F16")).write_bytes(b"GGUF")
"""


@pytest.fixture
def no_converter(monkeypatch, tmp_path):
    monkeypatch.delenv("LLAMA_CPP_DIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_missing_converter_comes_with_its_install_command(no_converter, monkeypatch, tmp_path):
    with pytest.raises(ConverterMissing, match=r"git clone --depth 1 .*ggml-org/llama\.cpp"):
        find_converter()
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path / "none"))
    with pytest.raises(ConverterMissing, match=r"in LLAMA_CPP_DIR \(.*/none\) or on PATH"):
        find_converter()


def test_it_is_found_in_its_folder_or_on_the_path(no_converter, monkeypatch, tmp_path):
    script = tmp_path / SCRIPT
    script.write_text(WORKS)
    script.chmod(0o755)
    assert find_converter() == script
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    assert find_converter() == script


def test_a_model_becomes_one_file_named_after_its_type(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    script = tmp_path / SCRIPT
    script.write_text(WORKS)
    assert convert(script, tmp_path / "model", tmp_path, "agent") == tmp_path / "agent-F16.gguf"


def test_a_failure_quotes_the_last_line_of_the_converter(tmp_path):
    script = tmp_path / SCRIPT
    script.write_text("raise SystemExit('BPE pre-tokenizer was not recognized')")
    with pytest.raises(PublishError, match=r"exit code 1\): BPE pre-tokenizer was not recognized"):
        convert(script, tmp_path, tmp_path, "agent")
