"""Secrets are found in every kind of file, and never printed."""

from __future__ import annotations

import getpass
import pickle
from pathlib import Path

import pytest

from rsearch_cli.errors import PublishUnsafe
from rsearch_cli.publishing import secret_scan
from rsearch_cli.publishing.secret_scan import scan_files

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
    with pytest.raises(PublishUnsafe, match=f"^{name} contains {found}") as caught:
        look(tmp_path, name, content)
    assert SECRET not in str(caught.value)
    assert "a1B2" not in str(caught.value)


# Parts that are joined only here: the forms themselves would alarm those who scan this file.
KEYS = [
    ("a private key", "-----BEGIN ", "RSA PRIVATE KEY-----"),
    ("a private key", "-----BEGIN ", "PRIVATE KEY-----"),
    ("a private key", "-----BEGIN ", "OPENSSH PRIVATE KEY-----"),
    ("a private key", "-----BEGIN ", "ENCRYPTED PRIVATE KEY-----"),
    ("a private key", "-----BEGIN ", "PGP PRIVATE KEY BLOCK-----"),
    ("a private key", "PuTTY-User-", "Key-File-3: ssh-ed25519"),
    ("a token in JWT form", "eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.dozjgNryP4J3jVmN"),
    ("a key of AWS", "AKIA", "IOSFODNN7EXAMPLE"),
    ("a key of AWS", "ASIA", "IOSFODNN7EXAMPLE"),
    ("a key of Google Cloud", "AIza", "a" * 35),
    ("a key of Google Cloud", "GOCSPX-", "a1" * 14),
    ("a key of Google Cloud", "ya29.", "a1" * 30),
    ("a key of Azure", "AccountKey=", "a1B2" * 21 + "a1=="),
    ("a key of Azure", "abc8Q~", "a1" * 17),
    ("a key of GitHub", "ghp_", "a1" * 18),
    ("a key of GitHub", "gho_", "a1" * 18),
    ("a key of GitHub", "ghs_", "a1" * 18),
    ("a key of GitHub", "github_pat_", "a1" * 30),
    ("a key of GitLab", "glpat-", "a1" * 10),
    ("a key of GitLab", "gldt-", "a1" * 10),
    ("a key of Hugging Face", "hf_", "a1" * 17),
    ("a key of Hugging Face", "api_org_", "a1" * 17),
    ("a key of OpenAI", "sk-proj-", "a1" * 20),
    ("a key of OpenAI", "sk-ant-api03-", "a1" * 40),
    ("a key of Slack", "xoxb-", "123456789012-123456789012-abc"),
    ("a key of Slack", "xapp-", "1-A0B1C2D3E4F-1234567890-abc"),
    ("a key of Slack", "https://hooks.slack.com/", "services/T0000/B0000/XXXXXXXXXX"),
    ("a key of npm", "npm_", "a1" * 18),
    ("a key of PyPI", "pypi-", "AgEIcHlwaS5vcmc" + "a1" * 40),
    ("a key of W&B", "wandb_v1_", "a1" * 20),
    ("a key of Stripe", "sk_live_", "a1" * 12),
    ("a key of Groq", "gsk_", "a1" * 26),
    ("a key of Tavily", "tvly-", "dev-" + "a1" * 16),
    ("a key of DigitalOcean", "hvs.", "a1" * 20),
    ("a key, by the name beside it", "EXA_API_KEY=", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"),
    ("a key, by the name beside it", "WANDB_API_KEY: ", "0a1b2c3d4e" * 4),
    ("a key, by the name beside it", "AWS_SECRET_ACCESS_KEY = ", "wJalrXUtnFEMI/K7MDENG/bPxRfiC"),
    ("a key, by the name beside it", '"api_key": "', "0a1b2c3d4e5f60718293"),
    ("a key, by the name beside it", "Authorization: Bearer ", "0a1b2c3d4e5f60718293"),
    ("a key, by the name beside it", "machine api.wandb.ai ", "login user password 0a1b2c3d4e"),
]  # fmt: skip
PLACES = [
    ("recipe.yaml", "utf-8", b"x: 1\ny: ", b"\n"),
    ("tokenizer.json", "utf-8", b'{"a": "', b'"}'),
    ("tokenizer.json", "utf-16-le", b"\xff\xfe\n\0", b"\n\0"),
    ("README.md", "utf-16-be", b"\xfe\xff\0 ", b"\0 "),
    ("model.safetensors", "utf-8", b"\1\2" * 500, b"\3" * 500),
    ("model.safetensors", "utf-16-le", b"\1\2" * 501, b"\3" * 500),
    ("model.safetensors", "utf-16-be", b"\1" * 1001, b"\3" * 500),
    ("agent.gguf", "utf-8", b"GGUF" + b"\xff" * 5000, b"\xff" * 9),
    ("reward.png", "utf-8", b"\x89PNG\r\n", b"\0"),
]


@pytest.mark.parametrize(
    ("kind", "head", "rest"), KEYS, ids=lambda part: part[:24] if isinstance(part, str) else ""
)
def test_keys_of_the_common_services_are_found_in_any_file(tmp_path, kind, head, rest):
    key = head + rest
    for name, encoding, before, after in PLACES:
        found = f"^{name} contains what looks like {kind}"
        with pytest.raises(PublishUnsafe, match=found) as caught:
            look(tmp_path, name, before + key.encode(encoding) + after)
        assert rest[:12] not in str(caught.value)


def test_the_value_of_a_key_variable_is_found_in_utf_16_too(tmp_path):
    for encoding in ("utf-16-le", "utf-16-be"):
        with pytest.raises(PublishUnsafe, match="the value of EXA_API_KEY"):
            look(tmp_path, "README.md", SECRET.encode(encoding))


def test_weights_and_vocabularies_raise_no_alarm(tmp_path):
    """Sixteen megabytes of numbers as weights have them, and the tokenizer of the nano model."""
    import torch
    from safetensors.torch import save

    from rsearch_cli.policy.resolve import locate_model

    torch.manual_seed(0)
    look(tmp_path, "model.safetensors", save({"w": (torch.randn(1 << 23) / 50).bfloat16()}))
    nano = Path(locate_model("builtin:nano"))
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors", "config.json"):
        look(tmp_path, name, (nano / name).read_bytes())


@pytest.mark.parametrize(
    "address",
    ["http://localhost:8000/v1", "http://10.1.2.3/v1", "https://192.168.0.4:8443", "http://[::1]/v1",
     "http://judge:8000/v1", "https://wiki.corp.internal/x", "http://172.20.1.1/", "s3://bucket/key"],
)  # fmt: skip
def test_an_internal_address_is_found_in_text(tmp_path, address):
    with pytest.raises(PublishUnsafe, match="contains the internal address"):
        look(tmp_path, "README.md", f"served at {address} and so on")


def test_a_path_in_the_metadata_of_weights_is_found(tmp_path):
    import torch
    from safetensors.torch import save

    data = save({"w": torch.ones(2)}, metadata={"from": "/home/ann/run"})
    with pytest.raises(PublishUnsafe, match=r"model\.safetensors contains the path /home/ann"):
        look(tmp_path, "model.safetensors", data)


def test_a_user_called_like_a_word_may_use_that_word(tmp_path, monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "will")
    look(tmp_path, "README.md", "It will search.")
    with pytest.raises(PublishUnsafe, match="the user name will"):
        look(tmp_path, "README.md", "will@host")


def test_the_token_in_use_is_looked_for_wherever_it_came_from(tmp_path):
    with pytest.raises(PublishUnsafe, match="contains the Hub token"):
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
    monkeypatch.setattr(secret_scan, "_CHUNK", 1000)
    with pytest.raises(PublishUnsafe, match="the value of EXA_API_KEY"):
        look(tmp_path, "a.txt", "x" * 990 + SECRET)
