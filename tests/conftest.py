"""What all tests share: no network, no cache of the user's, and the data beside the checkout.

It is imported before any test module, so before any library that reads these variables as it is
imported. Processes that tests start inherit the variables, but not the network block.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

import pytest

_CACHES = tempfile.TemporaryDirectory(prefix="rsearch-tests-")
os.environ |= {
    "HF_HOME": f"{_CACHES.name}/huggingface",
    "HF_HUB_OFFLINE": "1",
    # The models of the tests are tiny: a second thread gains nothing, and loses much as soon as
    # anything else runs on the machine.
    "OMP_NUM_THREADS": "1",
    "RSEARCH_CACHE_DIR": f"{_CACHES.name}/rsearch",
    "RSEARCH_STATE_DIR": f"{_CACHES.name}/state",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "UNSLOTH_COMPILE_LOCATION": f"{_CACHES.name}/unsloth_compiled_cache",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "WANDB_DIR": _CACHES.name,
    "WANDB_MODE": "disabled",
}

# Processes that tests start import the package that the tests import: the installed wheel under
# tox, although they are started in the checkout.
_PACKAGE = importlib.util.find_spec("rsearch_cli")
assert _PACKAGE is not None and _PACKAGE.origin is not None
_PATHS = [Path(_PACKAGE.origin).parents[1], Path(__file__).parent / "servers"]
_BROUGHT = os.environ.get("PYTHONPATH", "").split(os.pathsep)  # where packages are not installed
os.environ |= {
    "PYTHONSAFEPATH": "1",
    "PYTHONPATH": os.pathsep.join([*map(str, _PATHS), *filter(None, _BROUGHT)]),
}

# As in a terminal: what a shell starts in the background ignores Ctrl-C, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
# And what `nohup` starts ignores the end of the terminal.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


class NetworkBlocked(RuntimeError):
    """A test reached for the network; no OSError, so that no client takes it for a bad line."""


def _block_network(event: str, args: tuple[object, ...]) -> None:
    """Refuse everything but loopback and Unix sockets, in every thread and event loop."""
    if event in ("socket.connect", "socket.sendto"):
        connection, address = args
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            _require_loopback(address[0])
    elif event == "socket.getaddrinfo":
        _require_loopback(args[0])


def _require_loopback(host: object) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name and name not in ("localhost", "::1") and not name.startswith("127."):
        raise NetworkBlocked(f"tests have no network, and this one reached for {name}")


sys.addaudithook(_block_network)


ON_A_POLICY = {"nano_policy", "finished_run", "quickstart"}
"""Fixtures of tests that run a policy, which either back end must pass."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=["transformers", "unsloth"],
        default="transformers",
        help="what trains and generates; `unsloth` runs only the tests that depend on it",
    )


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("--backend")
    os.environ["RSEARCH_TEST_BACKEND"] = chosen
    # Where processes share the tests (pytest-xdist), the one that hands them out runs none.
    runs_tests = hasattr(config, "workerinput") or config.getoption("dist", "no") == "no"
    if chosen == "unsloth" and runs_tests:  # before anything that it patches is imported
        from rsearch_cli.compat.unsloth import start_unsloth

        if problem := start_unsloth():
            raise pytest.UsageError(f"--backend unsloth: {problem}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the tests of Unsloth with `--backend unsloth` alone, and with it no unrelated ones."""
    on_unsloth = config.getoption("--backend") == "unsloth"

    def wanted(item: pytest.Item) -> bool:
        if item.get_closest_marker("unsloth"):
            return on_unsloth
        either = hasattr(item.module, "BACKEND") or ON_A_POLICY & set(item.fixturenames)
        return not on_unsloth or bool(either)

    chosen = [item for item in items if wanted(item)]
    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = chosen


_FREEZE_ONCE = iter([gc.freeze])


def pytest_runtest_logfinish() -> None:
    """Once the training stack is imported, keep the garbage collector out of it.

    Every training collects all garbage, which takes 0.4 s with 600,000 objects of libraries.
    """
    if "trl.trainer.grpo_trainer" in sys.modules:
        for freeze in _FREEZE_ONCE:
            freeze()


@pytest.fixture
def messages_on_stderr():
    """The package's messages on stderr, as the app shows them."""
    from rsearch_cli.ui.stderr_log import log_to_stderr

    with log_to_stderr():
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def hotpot_file() -> Path:
    """60 real HotpotQA questions, level hard, with 10 paragraphs each."""
    path = SHARED_DATA / "hotpotqa_distractor_hard_60.jsonl"
    if not path.exists():
        pytest.skip(f"{path.name} is not in ../shared/data")
    return path


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Files of questions and of passages in the forms that people bring."""
    path = SHARED_DATA.parent / "cases"
    if not path.exists():
        pytest.skip("../shared/cases is not here")
    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a model folder; see `../shared/tools/get_smollm2.py`."""
    folder = Path(os.environ.get("RSEARCH_SMOLLM2", SHARED_DATA.parent / "smollm2"))
    if not (folder / "model.safetensors").exists():
        pytest.skip("set RSEARCH_SMOLLM2 to a folder with SmolLM2-135M-Instruct")
    return folder


SMALL = (
    "questions.world.train_regions=2",
    "questions.world.held_out_regions=1",
    "rollout.max_new_tokens=80",
)


def small() -> tuple[str, ...]:
    """Settings of a quickstart that takes seconds, on the back end under test."""
    from backend import BACKEND  # known once pytest is configured

    return (*SMALL, f"policy.backend={BACKEND}")


@pytest.fixture(scope="session")
def quickstart():
    """The quickstart recipe over a world of a few hundred passages."""
    from rsearch_cli.recipe.loading import load_recipe

    return load_recipe("quickstart", small()).recipe


@pytest.fixture
def nano_policy(quickstart):
    """The model inside the package, freshly loaded: tests may train it."""
    from rsearch_cli.policy.loading import load_policy

    return load_policy(quickstart.policy, seed=0)


@pytest.fixture(scope="session")
def tiny_policy():
    """An untrained Llama whose tokenizer knows no tag: every tag takes several tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from rsearch_cli.policy.local import LocalPolicy

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    text = ["<think> a b </think>\n<search>\nNodes:\nA: who wrote it (General)\nEdges:\n</search>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        text * 9, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<|pad|>", eos_token="<|end|>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return LocalPolicy(LlamaForCausalLM(config).eval(), tokenizer)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A run folder as the quickstart leaves it, after two steps; copy it before changing it."""
    from rsearch_cli.recipe.loading import load_recipe
    from rsearch_cli.workflows.train import train

    settings = ("train.max_steps=2", "train.batch_size=8", "train.num_generations=4")
    folder = tmp_path_factory.mktemp("finished") / "run"
    flags = {"output_dir": str(folder), "evaluate.limit": 24}
    recipe = load_recipe("quickstart", (*small(), *settings), flags).recipe
    train(recipe, folder)
    return folder


@pytest.fixture(scope="session")
def served_agent():
    """`rsearch serve --model builtin:nano` on a free port, in a process of its own."""
    from served_agent import serve_agent

    with serve_agent() as served:
        yield served
