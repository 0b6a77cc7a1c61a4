"""Broken or unusual weights: one line says what it is and what to do, before anything loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rsearch_cli.app import app
from rsearch_cli.policy.resolve import locate_model

QUESTION = "Where is Dresja Press based?"
SMALL = [
    "--set", "questions.world.train_regions=2",
    "--set", "questions.world.held_out_regions=1",
    "--set", "policy.backend=transformers",
]  # fmt: skip
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4400000\n"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def only_line(result: Result, code: int = 60) -> str:
    """The one line that says what is wrong; nothing was loaded before it."""
    assert result.exit_code == code, result.output
    assert "loading " not in result.stderr, "it is found before anything is loaded"
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("rsearch: ")]
    assert "unexpected" not in line and "Traceback" not in result.output
    assert "if the Hub cannot be reached" not in line, "the Hub is not the trouble"
    return line


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(locate_model("builtin:nano"), tmp_path / "model"))


def settings(folder: Path, name: str = "config.json", **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def cut_early(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text(POINTER)


def pointer_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(POINTER)


def pointer_config(folder: Path) -> None:
    (folder / "config.json").write_text(POINTER)


def web_page(folder: Path) -> None:
    (folder / "model.safetensors").write_text("<!doctype html><html>Sign in</html>")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04" + b"\0" * 999)


def garbage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0" + b"x" * 999)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def gguf_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF\3\0\0\0")


def gguf_without_config(folder: Path) -> None:
    gguf_only(folder)
    (folder / "config.json").unlink()


def gguf_renamed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"GGUF\3\0\0\0" + b"\0" * 99)


def shard_missing(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def shard_elsewhere(folder: Path) -> None:
    (folder.parent / "other.safetensors").write_bytes(b"")
    index = {"weight_map": {"a": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def awq(folder: Path) -> None:
    settings(folder, quantization_config={"quant_method": "awq", "bits": 4})


def gptq(folder: Path) -> None:
    settings(folder, quantization_config={"quant_method": "gptq", "bits": 4})


def fp8(folder: Path) -> None:
    settings(folder, quantization_config={"quant_method": "fp8"})


def mlx(folder: Path) -> None:
    settings(folder, quantization={"bits": 4, "group_size": 64})


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def pointer_tokenizer_settings(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(POINTER)


def pointer_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(POINTER)


def rewrite_header(weights: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change([tensor for name, tensor in header.items() if name != "__metadata__"])
    text = json.dumps(header).encode()
    weights.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def shape_lies(folder: Path) -> None:
    rewrite_header(folder / "model.safetensors", lambda t: t[0].update(shape=[7, 7]))


def type_lies(folder: Path) -> None:
    rewrite_header(folder / "model.safetensors", lambda t: t[0].update(dtype="F64"))


def offsets_overlap(folder: Path) -> None:
    rewrite_header(
        folder / "model.safetensors", lambda t: t[1].update(data_offsets=t[0]["data_offsets"])
    )


def config_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


MODELS = [
    (cut, "is cut off: ", "copy or download it again"),
    (cut_early, "is cut off within its first 100 bytes", "copy or download it again"),
    (empty, "model.safetensors is empty", "copy or download it again"),
    (pointer, "model.safetensors is a git-lfs pointer, not the file itself", "git lfs pull"),
    (pointer_tokenizer, "tokenizer.json is a git-lfs pointer", "git lfs pull"),
    (pointer_config, "config.json is a git-lfs pointer", "git lfs pull"),
    (web_page, "is a web page, not a file of weights", "download it again"),
    (pickled, "is a pickle or an archive under another name", "take the model's safetensors"),
    (pointer_tokenizer_settings, "tokenizer_config.json is a git-lfs pointer", "git lfs pull"),
    (pointer_template, "chat_template.jinja is a git-lfs pointer", "git lfs pull"),
    (garbage, "is not a safetensors file: its header is broken", ""),
    (shape_lies, "is not a safetensors file: its header is broken", ""),
    (type_lies, "is not a safetensors file: its header is broken", ""),
    (offsets_overlap, "is not a safetensors file: its header is broken", ""),
    (no_weights, "holds no weights", "copy or download it again"),
    (gguf_only, "holds GGUF files only, such as model-Q4_K_M.gguf", "llama-server -m FILE"),
    (gguf_without_config, "holds GGUF files only", "--endpoint http://localhost:8080/v1"),
    (gguf_renamed, "is a GGUF file under another name", "take the model's safetensors"),
    (shard_missing, "model-00001-of-00002.safetensors is not there", "download it again"),
    (shard_elsewhere, "../other.safetensors is not there", "download it again"),
    (
        awq,
        "is stored quantised by AWQ, in a form that rsearch does not load",
        "policy.load_in_4bit",
    ),
    (gptq, "is stored quantised by GPTQ", "take the model that it was made from"),
    (fp8, "is stored quantised by FP8", "take the model that it was made from"),
    (mlx, "is stored quantised, in a form", "take the model that it was made from"),
    (broken_config, "config.json cannot be read", ""),
    (config_list, "config.json cannot be read: it must be a JSON object, not list", ""),
]


@pytest.mark.parametrize(
    ("damage", "is_what", "do_what"), MODELS, ids=lambda p: getattr(p, "__name__", "")
)
def test_a_model_folder_that_cannot_be_loaded_is_one_line(
    damage: Callable[[Path], None], is_what: str, do_what: str, model: Path
) -> None:
    damage(model)
    line = only_line(call("infer", "--model", model, QUESTION, *SMALL))
    assert is_what in line and do_what in line
    assert str(model) in line


@pytest.mark.parametrize("command", ["train", "preview", "eval", "push"])
def test_every_command_says_so(
    command: str, model: Path, tmp_path: Path, finished_run: Path
) -> None:
    cut(model)
    words: list[object] = {
        "train": ["train", "--recipe", "quickstart", "--model-name", model, "--output-dir",
                  tmp_path / "out"],
        "preview": ["preview", "--recipe", "quickstart", "--model-name", model],
        "eval": ["eval", "--model", model, "--output-dir", tmp_path / "out"],
        "push": ["push", tmp_path / "run", "--hub-model-id", "me/x", "--dry-run",
                 "--trust-settings"],
    }[command]  # fmt: skip
    if command == "push":
        run = shutil.copytree(finished_run, tmp_path / "run")
        recipe = Path(run) / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace("builtin:nano", str(model)))
    else:
        words += SMALL
    line = only_line(call(*words))
    assert "model.safetensors is cut off: " in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("m.gguf", "m.gguf is a GGUF file; rsearch loads safetensors"),
        ("m.safetensors", "m.safetensors is a file; give the folder that holds config.json"),
        ("m.bin", "m.bin is a file; give the folder that holds config.json"),
    ],
)
@pytest.mark.parametrize("command", ["infer", "train"])
def test_a_file_of_weights_is_told_from_a_missing_folder(
    command: str, name: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(b"GGUF" if name.endswith("gguf") else b"....")
    given = ["infer", "--model", path, QUESTION] if command == "infer" else [
        "train", "--recipe", "quickstart", "--model-name", path, "--output-dir", tmp_path / "out"
    ]  # fmt: skip
    assert words in only_line(call(*given, *SMALL))


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def adapter_cut(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def adapter_pointer(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_text(POINTER)


def adapter_pickled(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04K\x01.")


def adapter_of_pissa(adapter: Path) -> None:
    settings(adapter, "adapter_config.json", init_lora_weights="pissa_niter_4")


def adapter_of_ia3(adapter: Path) -> None:
    settings(adapter, "adapter_config.json", peft_type="IA3")


def adapter_with_expressions(adapter: Path) -> None:
    settings(adapter, "adapter_config.json", rank_pattern={"(a+)+$": 4})


def adapter_without_rank(adapter: Path) -> None:
    settings(adapter, "adapter_config.json", r=None)


def adapter_of_integers(adapter: Path) -> None:
    rewrite_header(adapter / "adapter_model.safetensors", lambda t: t[0].update(dtype="I32"))


ADAPTERS = [
    (adapter_of_integers, "holds I32, no real numbers"),
    (adapter_cut, "adapter_model.safetensors is cut off within its first 5,000 bytes"),
    (adapter_pointer, "adapter_model.safetensors is a git-lfs pointer"),
    (adapter_pickled, "there is no adapter_model.safetensors in it but a pickle"),
    (adapter_of_pissa, "was made with init_lora_weights pissa_niter_4"),
    (adapter_of_ia3, "holds a IA3 adapter; rsearch loads LORA adapters only"),
    (adapter_with_expressions, "rank_pattern does not list names of modules"),
    (adapter_without_rank, "gives r and lora_alpha as [None, 32]"),
]


@pytest.mark.parametrize(("damage", "words"), ADAPTERS, ids=lambda p: getattr(p, "__name__", ""))
@pytest.mark.parametrize("place", ["run", "adapter", "policy.adapter"])
def test_an_adapter_that_cannot_be_loaded_is_one_line(
    damage: Callable[[Path], None], words: str, place: str, run: Path, tmp_path: Path
) -> None:
    damage(run / "adapter")
    if place == "policy.adapter":
        if damage in (adapter_of_ia3, adapter_without_rank, adapter_with_expressions):
            words = "adapter"  # said in the words of a training that goes on from it
        start = ["--set", f"policy.adapter={run}", "--output-dir", tmp_path / "out"]
        result = call("train", "--recipe", "quickstart", *start, *SMALL)
    else:
        model = run if place == "run" else run / "adapter"
        result = call("infer", "--model", model, QUESTION)
    line = only_line(result)
    assert words in line and str(run / "adapter") in line


def write_other_model(folder: Path) -> Path:
    """A whole model of another shape, without an effect of training."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    nano = locate_model("builtin:nano")
    config = LlamaConfig(
        **json.loads((Path(nano) / "config.json").read_text()) | {"hidden_size": 96, "head_dim": 16}
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(nano).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("command", ["infer", "eval"])
def test_an_adapter_of_another_base_is_one_line(command: str, run: Path, tmp_path: Path) -> None:
    other = write_other_model(tmp_path / "other-base")
    words = [command, "--model", run, "--set", f"policy.model={other}"]
    words += [QUESTION] if command == "infer" else ["--output-dir", tmp_path / "out"]
    result = call(*words)
    assert result.exit_code == 60, result.output
    line = result.stderr.splitlines()[-1]
    assert f"the adapter {run / 'adapter'} is for another model than {other}" in line
    assert "it has 512 inputs and 192 outputs, and the model has 512 and 96" in line


def test_an_adapter_on_a_base_of_another_name_is_said(run: Path, model: Path) -> None:
    renamed = model.rename(model.with_name("renamed"))
    result = call("infer", "--model", run, "--set", f"policy.model={renamed}", QUESTION)
    assert result.exit_code == 0, result.output
    assert f"it is put on {renamed}, which has the same modules" in result.stderr


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ("q_proj,qq_proj", "builtin:nano has no module qq_proj; its linear modules are"),
        ("query_key_value", "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        (
            "all-linear,q_proj",
            "all-linear already stands for every linear module; list nothing else",
        ),
    ],
)
def test_modules_that_the_model_has_not_are_named(modules: str, words: str, tmp_path: Path) -> None:
    result = call("train", "--recipe", "quickstart", "--lora-target-modules", modules,
                  "--output-dir", tmp_path / "out", *SMALL)  # fmt: skip
    assert result.exit_code in (13, 60), result.output
    assert words in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_all_linear_trains_every_linear_module_but_the_head(quickstart: Any) -> None:
    from rsearch_cli.policy.loading import load_policy
    from rsearch_cli.recipe.loading import load_recipe

    recipe = load_recipe("quickstart", ["policy.lora.target_modules=all-linear"]).recipe.policy
    recipe = recipe.model_copy(update={"backend": "transformers"})
    model = load_policy(recipe, seed=0).model
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in model.named_parameters()
               if ".lora_" in name}  # fmt: skip
    assert adapted == {*"q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()}


def fill(weights: Path, tensor: str, value: float) -> None:
    """Overwrite the first number of a tensor."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    name = next(name for name in tensors if tensor in name)
    tensors[name].view(-1)[0] = value
    save_file(tensors, weights, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["base", "adapter"])
def test_weights_that_are_no_numbers_answer_nothing(
    where: str, value: float, model: Path, run: Path
) -> None:
    options = ["--model", run]
    if where == "base":
        fill(model / "model.safetensors", "norm", value)
        options = ["--model", model, "--recipe", "quickstart"]
    else:
        fill(run / "adapter" / "adapter_model.safetensors", "lora_A", value)
    result = call("infer", *options, QUESTION, *SMALL[-2:])
    assert result.exit_code == 60, result.output
    line = result.stderr.splitlines()[-1]
    assert "holds weights that are NaN or infinite, and computes no answer" in line
    assert (f"with the adapter {run / 'adapter'}" in line) == (where == "adapter")


def more_layers(folder: Path) -> None:
    settings(folder, num_hidden_layers=9)


def other_heads(folder: Path) -> None:
    settings(folder, num_attention_heads=3)


def a_pickle_that_runs_code(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(
        b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94"
        b"\x8c\x02ls\x94\x85\x94R\x94."
    )


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (more_layers, "of the weights that its config.json describes, such as model.layers."),
        (other_heads, "of the weights that its config.json describes, such as model.layers.0"),
        (a_pickle_that_runs_code, "holds its weights as a pickle with more than weights in it"),
        (no_tokenizer, "has no tokenizer that can be read: there is no tokenizer.json"),
    ],
)
def test_what_only_loading_shows_is_one_line_too(
    damage: Callable[[Path], None], words: str, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Transformers would draw weights that are not there at random, with a warning."""
    damage(model)
    result = call("infer", "--model", model, "--recipe", "quickstart", QUESTION, *SMALL[-2:])
    assert result.exit_code == 60, result.output
    assert words in result.stderr.splitlines()[-1]
    assert "Warning" not in result.stderr + capfd.readouterr().err
