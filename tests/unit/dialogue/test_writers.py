from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.dialogue.writers import (
    EndpointWriter,
    PolicyWriter,
    Unusable,
    explain_missing,
    make_chat,
    open_writer,
    strip_thought,
)
from rsearch_cli.errors import PolicyError, RecipeValueError
from rsearch_cli.policy.generation import Context, Generation, Prompt, Row
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.services.event_loop import working_for
from rsearch_cli.services.runtime import Services, open_services

URL = "http://localhost:9/v1"


def load(*settings: str) -> Recipe:
    return load_recipe("quickstart", settings).recipe


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_services(load(), None, tmp_path) as services:
        yield services


class Replying:
    """A policy on a server with one reply and prompts of a hundred tokens per message."""

    forbidden = ("[INST]",)
    eos_id = None

    def __init__(self, reply: str = "", stop: str = "eos", error: str | None = None) -> None:
        self.generation = Generation((), reply, stop, usage=1, error=error)  # type: ignore[arg-type]
        self.asked: list[tuple[int, int]] = []

    def render(self, messages, *, open_thought=False):
        return Prompt(tuple(messages), usage=100 * len(messages))

    def generate(self, contexts, stops, max_new_tokens, *args, **kwargs):
        self.asked.append((len(contexts[0].prompt.messages), max_new_tokens[0]))
        return [self.generation]


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ((), None),
        (("policy.model=me/instruct",), PolicyWriter),
        (("policy.model=me/instruct", "dialogue.writer=none"), None),
        (("policy.model=me/instruct", f"dialogue.endpoint.url={URL}"), EndpointWriter),
        (("policy.model=me/instruct", f"dialogue.endpoint.url={URL}", "dialogue.writer=policy"),
         PolicyWriter),
        ((f"dialogue.endpoint.url={URL}",), EndpointWriter),
        (("dialogue.writer=endpoint",), EndpointWriter),
        (("dialogue.writer=policy",), PolicyWriter),
        ((f"policy.endpoint.url={URL}",), PolicyWriter),
    ],
)  # fmt: skip
def test_who_writes(services: Services, settings: tuple[str, ...], kind: type | None) -> None:
    writer = open_writer(load(*settings), Replying(), services)  # type: ignore[arg-type]
    assert (writer and type(writer)) == kind


def test_why_nobody_writes_and_what_to_set() -> None:
    assert explain_missing(load()).startswith("this model can only search; set dialogue.endpoint")
    none = explain_missing(load("dialogue.writer=none"))
    assert none.startswith(
        "dialogue.writer is none; set it to policy, or set dialogue.endpoint.url"
    )


def test_an_address_of_the_environment_that_is_none_is_refused(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "user:hunter2@host")
    with pytest.raises(RecipeValueError, match="OPENAI_BASE_URL is not an http address") as caught:
        open_writer(load("dialogue.writer=endpoint"), Replying(), services)  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("Who?", "Who?"),
        ("<think>\nWho is it?\n</think>\n\nWho?\n", "Who?"),
        ("it is </think> no, it is </think> Who?", "Who?"),
        ("<answer> Who? </answer>", "Who?"),
        ("</think><answer>Who?", "Who?"),
        ("<answer>A</answer> <answer>B</answer>", "<answer>A</answer> <answer>B</answer>"),
    ],
)
def test_thoughts_and_a_single_answer_block_are_removed(reply: str, text: str) -> None:
    assert strip_thought(reply) == text


def test_a_thought_without_an_end_is_refused() -> None:
    with pytest.raises(Unusable, match="does not end"):
        strip_thought("<think> Who is")


def test_examples_are_earlier_turns() -> None:
    chat = make_chat("Do.", [("a", "b"), ("c", "d")], "e")
    assert [message["content"] for message in chat] == ["Do.\n\na", "b", "c", "d", "e"]
    assert [message["role"] for message in chat] == ["user", "assistant"] * 2 + ["user"]


def test_the_first_chat_that_leaves_room_is_sent() -> None:
    policy = Replying("Who?")
    recipe = load("policy.max_seq_length=512", "dialogue.max_output_tokens=1024")
    writer = PolicyWriter(policy, recipe)  # type: ignore[arg-type]
    drafts = [make_chat("", [("a", "b")] * most, "c") for most in (3, 1, 0)]
    assert writer.write(drafts, str.upper) == "WHO?"
    assert policy.asked == [(1, 411)]
    with pytest.raises(PolicyError, match=r"policy\.max_seq_length=512 leaves no room"):
        writer.write(drafts[:1], str)


def test_a_template_without_earlier_turns_gets_one_message() -> None:
    class SingleTurn(Replying):
        def render(self, messages, *, open_thought=False):
            if len(messages) > 1:
                raise PolicyError("the chat template is wrong")
            return Prompt(tuple(messages), usage=10)

    policy = SingleTurn("Who?")
    writer = PolicyWriter(policy, load())  # type: ignore[arg-type]
    assert writer.write([make_chat("Do.", [("a", "b")], "c")], str) == "Who?"
    assert policy.asked[0][0] == 1


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (Replying("Who", "length"), Unusable, "it was cut off after 16 tokens"),
        (Replying(error="no reply"), Exception, "no reply"),
    ],
)
def test_what_is_no_reply_is_raised(policy: Replying, error: type, message: str) -> None:
    writer = PolicyWriter(policy, load("dialogue.max_output_tokens=16"))  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        writer.write([make_chat("", [], "a")], str)


def test_control_tokens_of_the_policy_are_broken() -> None:
    writer = PolicyWriter(Replying(), load())  # type: ignore[arg-type]
    assert writer.clean("a\n[INST]<b>") == "a [ INST]‹b›"


def test_the_policy_writes_without_its_adapter(nano_policy: LocalPolicy) -> None:
    import torch

    nano = nano_policy
    prompt = nano.render([{"role": "user", "content": "Who founded Vosbe Press?"}])

    def write() -> str:
        return nano.generate([Context(prompt)], ["</search>"], [24])[0].text

    plain = write()
    weights = [w for name, w in nano.model.named_parameters() if "lora_B" in name]
    kept = [w.detach().clone() for w in weights]
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            for weight in weights:
                weight.normal_()
        assert write() != plain
        with nano.without_adapter():
            assert write() == plain
        assert write() != plain
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)


def test_local_weights_stop_writing_when_nobody_waits(
    nano_policy: LocalPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        is_over = True

        def depend_on(self, future: Future[Any]) -> None:
            """Nothing is sent."""

    written: list[Generation] = []
    generate = nano_policy.generate_rows

    def spy(rows: Sequence[Row], cache: PrefixCache | None = None) -> list[Generation]:
        written.extend(generate(rows, cache))
        return written[-1:]

    monkeypatch.setattr(nano_policy, "generate_rows", spy)
    writer = PolicyWriter(nano_policy, load())
    with working_for(Gone()), pytest.raises(Unusable):
        writer.write([make_chat("Write.", [], "Who founded Vosbe Press?")], str)
    assert len(written[0].token_ids) == 1
