"""transformers' loading of weights: whether it still draws missing ones at random."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from rsearch_cli.compat.transformers import missing_weights_refused
from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.resolve import locate_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with a layer more in its config.json than it has weights for."""
    folder = Path(shutil.copytree(locate_model("builtin:nano"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_missing_weights_are_still_drawn_at_random(model: Path) -> None:
    """When this fails, `missing_weights_refused` may no longer be needed."""
    _, found = AutoModelForCausalLM.from_pretrained(model, output_loading_info=True)
    assert found["missing_keys"]


def test_a_model_that_lacks_weights_is_refused(model: Path) -> None:
    lacks = r"lacks \d+ of the weights that its config\.json describes, such as model\.layers\."
    with pytest.raises(PolicyError, match=lacks), missing_weights_refused(str(model)):
        AutoModelForCausalLM.from_pretrained(model)
    AutoModelForCausalLM.from_pretrained(model)
    with missing_weights_refused("nano"):
        AutoModelForCausalLM.from_pretrained(locate_model("builtin:nano"))
