"""The card of this machine, as nvidia-smi tells it."""

from __future__ import annotations

import pytest

from rsearch_cli.memory.card import find_vram, select_visible

SIZES = {"GPU-aa": 24564.0, "GPU-bb": 8192.0}


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A program in its place that prints two cards."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return install


def test_the_largest_card_counts(nvidia_smi) -> None:
    nvidia_smi("echo 'GPU-bb, 8192'; echo 'GPU-aa, 24564'")
    assert find_vram() == pytest.approx(23.99, abs=0.01)


def test_a_card_that_is_hidden_does_not_count(nvidia_smi, monkeypatch) -> None:
    nvidia_smi("echo 'GPU-bb, 8192'; echo 'GPU-aa, 24564'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert find_vram() == 8.0


@pytest.mark.parametrize(
    "script",
    [
        *("exit 9", "echo 'No devices were found'", "echo 'GPU-aa, [N/A]'"),
        r"printf '\215\377, 24564\n'",
        r"printf 'GPU-\033]0;x\007, 24564\n'",
    ],
)
def test_no_card(nvidia_smi, script: str) -> None:
    nvidia_smi(script)
    assert find_vram() is None


def test_no_driver(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_vram() is None


@pytest.mark.parametrize(
    ("visible", "sizes"),
    [
        (None, [24564.0, 8192.0]),
        ("", []),
        ("-1", []),
        ("1", [8192.0]),
        ("1,0", [8192.0, 24564.0]),
        ("0,7,1", [24564.0]),
        ("GPU-b", [8192.0]),
    ],
)
def test_what_cuda_visible_devices_leaves(visible: str | None, sizes: list[float]) -> None:
    assert select_visible(SIZES, visible) == sizes
