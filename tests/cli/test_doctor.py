"""`rsearch doctor` on machines that lack something, each with the remedy that fits."""

from __future__ import annotations

import json
import socket
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rsearch_cli.app import app
from rsearch_cli.compat import unsloth
from rsearch_cli.memory import driver
from rsearch_cli.workflows import doctor as diagnosis

CARD = "NVIDIA GeForce RTX 4090, {driver}, 24564"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def look_at(name: str) -> dict[str, str]:
    """One check of `rsearch doctor --json`."""
    checks = json.loads(call("--json").stdout)
    (check,) = [check for check in checks if check["name"] == name]
    return check


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No card, no keys, a Hub that is not asked, and Unsloth not imported into this process."""
    for name in diagnosis.KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(unsloth, "start_unsloth", lambda: "unsloth is not installed")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Install an nvidia-smi that lists a card with a driver, and a torch of some build."""

    def install(driver_version: str, cuda: str | None, *, works: bool = False) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho '{CARD.format(driver=driver_version)}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        for module in (driver, diagnosis):
            monkeypatch.setattr(module, "torch_cuda_version", lambda: cuda)
            monkeypatch.setattr(module, "torch_sees_gpu", lambda: works)

    return install


def test_an_old_driver_is_named_with_the_driver_that_is_needed(machine) -> None:
    machine("570.133.07", "13.0")
    result = call()
    assert result.exit_code == 1
    torch = look_at("torch")
    assert torch["status"] == "problem"
    assert "RTX 4090 with driver 570.133.07, but torch cannot use it" in torch["seen"]
    assert "built with CUDA 13.0, which needs driver 580 or later" in torch["seen"]
    assert torch["remedy"].startswith("update the driver, or install a torch built with CUDA 12")
    assert "FAIL  torch: " in result.stdout


@pytest.mark.parametrize(("cuda", "least"), [("12.8", 525), ("13.0", 580)])
def test_a_driver_too_old_for_cuda_12_must_be_updated(machine, cuda: str, least: int) -> None:
    machine("470.256.02", cuda)
    torch = look_at("torch")
    assert f"needs driver {least} or later" in torch["seen"]
    assert torch["remedy"] == "update the driver"


def test_a_build_without_cuda_is_told_from_an_old_driver(machine) -> None:
    machine("580.159.04", None)
    torch = look_at("torch")
    assert "this build of torch has no CUDA" in torch["seen"]
    assert torch["remedy"].startswith("reinstall it with `pip install --force-reinstall")


def test_a_card_hidden_by_the_environment_is_told(machine, monkeypatch) -> None:
    machine("580.159.04", "12.8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    torch = look_at("torch")
    assert "CUDA_VISIBLE_DEVICES='' hides it" in torch["seen"]
    assert torch["remedy"] == "unset it"


def test_a_card_that_works_is_no_problem(machine) -> None:
    machine("525.60.13", "12.8", works=True)
    assert look_at("torch")["status"] == "ok"
    assert (
        look_at("graphics card")["seen"] == "NVIDIA GeForce RTX 4090, 24564 MiB, driver 525.60.13"
    )


def test_a_compiler_and_headers_are_needed_with_a_card_alone(
    machine, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "include"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert look_at("C compiler")["status"] == look_at("Python headers")["status"] == "note"
    machine("580.159.04", "12.8", works=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    compiler, headers = look_at("C compiler"), look_at("Python headers")
    assert compiler["status"] == headers["status"] == "problem"
    assert "`sudo apt install gcc`" in compiler["remedy"]
    assert "-dev`" in headers["remedy"]


def test_a_machine_without_a_card_is_no_failure() -> None:
    result = call()
    assert result.exit_code == 0, result.stdout
    assert "note  graphics card: no NVIDIA card" in result.stdout
    assert result.stdout.endswith("no problems found\n")


def test_keys_are_present_or_not_and_never_shown(monkeypatch) -> None:
    monkeypatch.setenv("EXA_API_KEY", "exa-secret-0123456789")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret 0123456789")
    result = call()
    assert "ok    EXA_API_KEY: set\n" in result.stdout
    assert "FAIL  OPENAI_API_KEY: set, but it holds a space" in result.stdout
    assert "note  WANDB_API_KEY: not set" in result.stdout
    assert "secret" not in result.output


def test_a_login_in_netrc_is_a_key(tmp_path) -> None:
    login = tmp_path / ".netrc"
    login.write_text("machine api.wandb.ai login user password secret\n")
    login.chmod(0o600)
    assert look_at("WANDB_API_KEY")["seen"] == "not set; logged in by `wandb login`"


def test_a_hub_that_does_not_answer_is_told_with_the_ways_around_it(monkeypatch) -> None:
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    hub = look_at("Hugging Face Hub")
    assert hub["status"] == "problem"
    assert hub["seen"] == f"http://127.0.0.1:{port} cannot be reached (ConnectError)"
    assert "HTTPS_PROXY" in hub["remedy"]


def test_a_home_that_cannot_be_written_names_the_variable_to_set(monkeypatch) -> None:
    monkeypatch.setenv("RSEARCH_CACHE_DIR", "/proc/nobody/rsearch")
    monkeypatch.setattr(diagnosis.os, "access", lambda path, mode: str(path) != "/proc")
    cache = look_at("cache of rsearch")
    assert cache["status"] == "problem"
    assert cache["remedy"] == "set RSEARCH_CACHE_DIR to a folder of yours"


def test_a_proxy_setting_that_cannot_be_used_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HTTPS_PROXY", "foo:bar:baz")
    hub = look_at("Hugging Face Hub")
    assert (hub["status"], hub["remedy"]) == ("problem", "unset it, or correct it")
    assert "https_proxy=foo:bar:baz" in hub["seen"].lower()


def test_a_torch_that_does_not_import_ends_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str | None:
        raise ImportError("libtorch_cpu.so: failed to map segment")

    monkeypatch.setattr(diagnosis, "torch_cuda_version", fail)
    monkeypatch.setattr(unsloth, "start_unsloth", fail)
    assert look_at("torch")["status"] == "problem"
    assert look_at("Unsloth")["seen"] == "does not import: libtorch_cpu.so: failed to map segment"


def test_a_cache_below_a_file_is_a_problem(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert look_at("cache of rsearch")["status"] == "problem"
