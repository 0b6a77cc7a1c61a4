"""From the recipe's model name to weights, and what is said when that fails."""

from __future__ import annotations

import re
import shutil

import pytest
from backend import BACKEND

from rsearch_cli.compat import unsloth
from rsearch_cli.errors import PolicyError
from rsearch_cli.memory.driver import UnusedCard
from rsearch_cli.policy import loading, unsloth_backend
from rsearch_cli.policy.loading import choose_backend, load_policy
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.policy.transformers_backend import check_dtype, compute_dtype
from rsearch_cli.recipe.policy import PolicyConfig


def test_the_builtin_model_is_found_inside_the_package():
    assert locate_model("builtin:nano").endswith("rsearch_cli/models/nano")


def test_a_hub_id_stays_as_it_is():
    assert locate_model("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("builtin:mini", "no built-in model 'builtin:mini'; there is builtin:nano"),
        ("/no/such/folder", "the folder /no/such/folder does not exist"),
        ("./models/mine", "the folder ./models/mine does not exist"),
    ],
)
def test_a_model_that_is_not_there_is_named(name, message):
    with pytest.raises(PolicyError, match=message):
        locate_model(name)


def test_a_folder_without_a_config_is_no_model(tmp_path):
    with pytest.raises(PolicyError, match=r"is not a model folder, it has no config\.json"):
        locate_model(str(tmp_path))


def test_auto_passes_unsloth_over_with_the_reason(monkeypatch):
    monkeypatch.setattr(unsloth, "start_unsloth", lambda: "unsloth 1 needs a GPU")
    reason = "policy.backend is auto, and unsloth 1 needs a GPU"
    assert choose_backend("auto") == ("transformers", reason)
    with pytest.raises(PolicyError, match=r"unsloth 1 needs a GPU; use --set policy\.backend=auto"):
        choose_backend("unsloth")


def test_auto_takes_unsloth_where_it_runs(monkeypatch):
    monkeypatch.setattr(unsloth, "start_unsloth", lambda: None)
    assert choose_backend("auto") == ("unsloth", "policy.backend is auto, and Unsloth runs here")
    assert choose_backend("unsloth") == ("unsloth", "policy.backend asks for it")


@pytest.mark.parametrize(
    ("wanted", "problem", "backend"),
    [
        ("auto", None, "unsloth"),
        ("auto", "unsloth 1 needs a GPU", "transformers"),
        ("unsloth", None, "unsloth"),
        ("transformers", None, "transformers"),
    ],
)
def test_a_card_that_torch_cannot_use_is_explained(monkeypatch, wanted, problem, backend):
    """Unsloth also runs on a CPU, where nothing else would point to the idle card."""
    cause = UnusedCard("nvidia-smi lists a card, but torch cannot use it", "update the driver")
    monkeypatch.setattr(unsloth, "start_unsloth", lambda: problem)
    monkeypatch.setattr(loading, "explain_unused_card", lambda: cause)
    chosen, reason = choose_backend(wanted)
    assert chosen == backend and reason.endswith(f"; {cause}")


def test_without_unsloth_a_card_that_torch_cannot_use_is_explained(monkeypatch):
    cause = UnusedCard("torch cannot use the card", "update the driver")
    monkeypatch.setattr(unsloth, "start_unsloth", lambda: "unsloth 1 needs a GPU")
    monkeypatch.setattr(loading, "explain_unused_card", lambda: cause)
    with pytest.raises(PolicyError, match="needs a GPU; torch cannot use the card; update the dr"):
        choose_backend("unsloth")


def test_a_broken_model_folder_is_one_clear_line(tmp_path, quickstart):
    shutil.copytree(locate_model("builtin:nano"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text("{}")
    recipe = quickstart.policy.model_copy(update={"model": str(tmp_path)})
    with pytest.raises(PolicyError, match=f"could not be loaded with {BACKEND}: ") as caught:
        load_policy(recipe, seed=0)
    assert "\n" not in str(caught.value)


def test_rows_longer_than_the_model_has_positions_are_refused(quickstart):
    assert quickstart.policy.max_seq_length == 512, "all that the nano model has positions for"
    recipe = quickstart.policy.model_copy(update={"max_seq_length": 513})
    with pytest.raises(PolicyError, match=r"max_seq_length is 513, .*for 512 tokens; .*=512, or"):
        load_policy(recipe, seed=0)


def test_an_older_card_computes_in_float16(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    for native, chosen in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native
        )
        assert compute_dtype(PolicyConfig()) == chosen
        check_dtype(PolicyConfig(dtype="float16"))
    with pytest.raises(PolicyError, match=r"dtype is bfloat16, which Tesla T4 does not compute in"):
        check_dtype(PolicyConfig(dtype="bfloat16"))


def test_unsloth_is_told_of_the_longest_padded_row(quickstart):
    folder = locate_model("builtin:nano")
    for length, room in ((200, 400), (512, 512)):
        recipe = quickstart.policy.model_copy(update={"max_seq_length": length})
        assert unsloth_backend.room_of_a_batch(folder, recipe) == room


def test_a_fresh_adapter_changes_nothing_and_a_perturbed_one_does(nano_policy):
    import torch

    model = nano_policy.model
    ids = torch.tensor([nano_policy.render([{"role": "user", "content": "Who?"}]).token_ids])
    with torch.no_grad():
        fresh = model(ids).logits
        with model.disable_adapter():
            base = model(ids).logits
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.add_(0.05)
        perturbed = model(ids).logits
    assert torch.equal(fresh, base)
    assert (perturbed - base).abs().max() > 1e-3


def test_a_trained_adapter_stands_whatever_its_training_started_from(quickstart, tmp_path):
    import torch
    from safetensors.torch import load_file

    folders = tmp_path / "start", tmp_path / "trained"
    policy = load_policy(quickstart.policy, seed=0)
    for folder in folders:
        with torch.no_grad():
            for name, weight in policy.model.named_parameters():
                if "lora_B" in name:
                    weight.add_(0.01)
        policy.model.save_pretrained(folder)
    start, trained = folders
    recipe = quickstart.policy.model_copy(update={"adapter": str(start)})
    model = load_policy(recipe, seed=0, trained=trained).model
    held = dict(model.named_parameters())
    for key, value in load_file(trained / "adapter_model.safetensors").items():
        assert held[key.replace(".weight", f".{model.active_adapter}.weight")].equal(value)


def test_only_the_adapter_is_trained(nano_policy):
    trained = [n for n, p in nano_policy.model.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)


def test_the_seed_decides_the_adapter(quickstart):
    def weights(seed: int):
        model = load_policy(quickstart.policy, seed).model
        return next(p for n, p in model.named_parameters() if "lora_A" in n)

    assert weights(1).equal(weights(1))
    assert not weights(1).equal(weights(2))


def test_loading_is_the_only_module_that_imports_unsloth(repository):
    package = repository / "rsearch_cli"
    users = {
        p.relative_to(package).as_posix()
        for p in package.rglob("*.py")
        if re.search(r"^\s*(import|from) unsloth\b", p.read_text(), re.MULTILINE)
    }
    assert users == {"compat/unsloth.py", "policy/unsloth_backend.py"}
