"""Code that comes with a model: no call leaves it to transformers whether to ask for it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rsearch_cli

MODULES = sorted(Path(rsearch_cli.__file__).parent.rglob("*.py"))
# What reads no code: settings of a generation, and an adapter that goes on a model in memory.
HARMLESS = ("GenerationConfig", "PeftModel")


def loading_calls(tree: ast.AST) -> list[ast.Call]:
    """Calls of `X.from_pretrained` and `X.from_config`, but for what reads no code."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in ("from_pretrained", "from_config")
        and getattr(call.func.value, "id", "") not in HARMLESS
    ]


def test_every_call_that_loads_a_model_says_whether_its_code_may_run() -> None:
    silent, found = [], 0
    for path in MODULES:
        for call in loading_calls(ast.parse(path.read_text(encoding="utf-8"))):
            found += 1
            if "trust_remote_code" not in [keyword.arg for keyword in call.keywords]:
                silent.append(f"{path.name}:{call.lineno}")
    assert found > 8
    assert silent == []


def test_what_libraries_call_without_a_word_is_refused_and_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import dynamic_module_utils

    from rsearch_cli.policy.loading import quieten_libraries

    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "y")
    quieten_libraries()
    with pytest.raises(ValueError, match="trust_remote_code"):
        dynamic_module_utils.resolve_trust_remote_code(None, "a/b", False, True)
    assert asked == []
    monkeypatch.setattr(dynamic_module_utils, "TIME_OUT_REMOTE_CODE", 5)
    assert dynamic_module_utils.resolve_trust_remote_code(None, "a/b", False, True)
    assert asked, "without that, transformers still asks"
