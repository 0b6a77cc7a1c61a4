"""Adapters for tests that load none: whole files, as PEFT writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj")


def write_adapter(
    folder: Path, rank: int = 4, modules: tuple[str, ...] = MODULES, size: int = 8, **config: Any
) -> Path:
    """A LoRA adapter over square modules; `config` changes its adapter_config.json."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for path in modules:
        weights[f"base_model.model.{path}.lora_A.weight"] = np.ones((rank, size), np.float32)
        weights[f"base_model.model.{path}.lora_B.weight"] = np.ones((size, rank), np.float32)
    save_file(weights, folder / "adapter_model.safetensors")
    plain = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "base_model_name_or_path": "a/base"}
    (folder / "adapter_config.json").write_text(json.dumps(plain | config))
    return folder


@pytest.fixture(name="write_adapter")
def _write_adapter() -> Callable[..., Path]:
    return write_adapter
