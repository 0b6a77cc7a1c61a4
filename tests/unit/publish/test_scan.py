"""What must not leave this machine is found in every kind of file, and never printed."""

from __future__ import annotations

import getpass
import pickle
from pathlib import Path

import pytest

from rsearch_cli.errors import PublishUnsafe
from rsearch_cli.publish import scan
from rsearch_cli.publish.scan import scan_files

SECRET = "opensesame-0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("EXA_API_KEY", SECRET)
    monkeypatch.setattr(getpass, "getuser", lambda: "jqdoe7")


def look(folder: Path, name: str, content: bytes | str, token: str | None = None) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    scan_files(folder, [name], token, "owner")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("README.md", f"key: {SECRET}", "the value of EXA_API_KEY"),
        ("model.safetensors", b"\0" * 99 + SECRET.encode(), "the value of EXA_API_KEY"),
        ("tokenizer.json", SECRET, "the value of EXA_API_KEY"),
        ("recipe.yaml", "k: hf_" + "a" * 34, "what looks like a key"),
        ("recipe.yaml", "k: sk-proj-" + "a1B2" * 8, "what looks like a key"),
        ("tokenizer.json", "sk-" + "a1B2" * 8, "what looks like a key"),
        ("config.json", '{"_name_or_path": "/home/ann/models/x"}', "the path /home/ann"),
        ("config.json", '{"p": "C:\\\\Users\\\\ann"}', "the path C:"),
        ("README.md", "made by jqdoe7 on", "the user name jqdoe7"),
        ("README.md", r"D:\work\jqdoe7\x", "the user name jqdoe7"),
        ("recipe.yaml", "base_url: http://ann:pw@host/v1", "a URL with a password"),
    ],
)
def test_keys_paths_and_names_are_found(tmp_path, name, content, found):
    with pytest.raises(PublishUnsafe, match=f"^{name} holds {found}") as caught:
        look(tmp_path, name, content)
    assert SECRET not in str(caught.value)
    assert "a1B2" not in str(caught.value)


def test_a_user_called_like_a_word_may_use_that_word(tmp_path, monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "will")
    look(tmp_path, "README.md", "It will search.")
    with pytest.raises(PublishUnsafe, match="the user name will"):
        look(tmp_path, "README.md", "will@host")


def test_the_token_in_use_is_looked_for_wherever_it_came_from(tmp_path):
    with pytest.raises(PublishUnsafe, match="holds the Hub token"):
        look(tmp_path, "a.txt", "x oddly-shaped-token x", token="oddly-shaped-token")


def test_the_working_folder_is_found_in_vocabularies_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PublishUnsafe, match="a path of this machine"):
        look(tmp_path, "tokenizer.json", f'"{tmp_path}"')


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", "See https://huggingface.co/data/set and https://example.org/home/x."),
        ("README.md", "tasks-and-more-words-in-a-row-of-many; <r> … </r>; and/or; ~/models"),
        ("README.md", "hf_transfer and sk-learn"),
        ("tokenizer.json", '"/home/": 1, "/usr/bin": 2, "jqdoe7": 3'),
    ],
)
def test_plain_text_is_let_through(tmp_path, name, content):
    look(tmp_path, name, content)


@pytest.mark.parametrize("name", ["adapter_model.bin", "x.pt", "rng.pth", "x.pkl", "weights.model"])
def test_a_pickle_is_refused_by_name_and_by_content(tmp_path, name):
    with pytest.raises(PublishUnsafe, match=f"{name} is or may be a pickle"):
        look(tmp_path, name, pickle.dumps({"a": 1}))


def test_a_key_across_two_stretches_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_CHUNK", 1000)
    with pytest.raises(PublishUnsafe, match="the value of EXA_API_KEY"):
        look(tmp_path, "a.txt", "x" * 990 + SECRET)
