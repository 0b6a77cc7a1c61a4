"""Chat templates that cannot hold what is meant: amended, given up with a word, or refused."""

from __future__ import annotations

import copy
import json
import shutil
from datetime import date
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.chat_template import ChatTemplate
from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.loading import load_tokenizer
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.prompts import fit_recipe, refuse_long_prompts, render_question
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question

SYSTEM = {"role": "system", "content": "Search first."}
USER = {"role": "user", "content": "Who?"}
ANSWER = {"role": "assistant", "content": "<think> a </think> b"}

PROMPT = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}" + PROMPT
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% endfor %}"
)


@pytest.fixture
def tokenizer() -> Any:
    """That of the nano model: <|system|>, <|user|>, <|assistant|> and <|end|> are tokens."""
    return AutoTokenizer.from_pretrained(locate_model("builtin:nano"))


def read(tokenizer: Any, template: Any) -> ChatTemplate:
    tokenizer.chat_template = template
    return ChatTemplate(tokenizer)


def test_a_template_that_holds_everything_is_left_as_it_is(tokenizer):
    template = read(tokenizer, PLAIN)
    assert tokenizer.chat_template == PLAIN
    assert template.notes == []
    assert template.turn_end == tokenizer.convert_tokens_to_ids("<|end|>")


@pytest.mark.parametrize("refusal", [REFUSING, STRICT])
def test_a_refused_system_message_stands_in_the_first_question(tokenizer, refusal):
    template = read(tokenizer, refusal + PLAIN)
    (note,) = template.notes
    assert "takes no system message (no system)" in note or "(roles must alternate" in note
    assert template.render([SYSTEM, USER]) == "<|user|>Search first.\n\nWho?<|end|><|assistant|>"
    longer = template.render([SYSTEM, USER, ANSWER, USER])
    assert longer.count("Search first.") == 1 and longer.startswith("<|user|>Search first.")
    assert template.render([USER, ANSWER, USER]) == longer.replace("Search first.\n\n", "")


def test_a_system_message_that_is_dropped_without_a_word_stands_in_the_first_question(tokenizer):
    dropping = PLAIN.replace("messages %}", "messages if m.role != 'system' %}", 1)
    template = read(tokenizer, dropping)
    assert "it changes or drops message 1 (system)" in template.notes[0]
    assert "Search first.\n\nWho?" in template.render([SYSTEM, USER])


def test_instructions_that_lose_what_stands_before_a_tag_stand_in_the_first_question(tokenizer):
    of_system = "m.content.split('</think>')[-1] if m.role == 'system' else m.content"
    template = read(tokenizer, PLAIN.replace("m.content", of_system))
    tagged = {"role": "system", "content": "Write <think> a thought </think> first."}
    assert "it changes or drops message 1 (system)" in template.notes[0]
    assert f"{tagged['content']}\n\nWho?" in template.render([tagged, USER])
    with pytest.raises(PolicyError, match="cannot hold a system prompt: it changes or drops mess"):
        read(tokenizer, PLAIN.replace("m.content", "m.content.split('</think>')[-1]"))


def test_an_amendment_keeps_every_blank_of_the_template(tokenizer):
    spaced = "\n  \n" + REFUSING + "  \n" + PLAIN + "\n\n"
    untouched = read(tokenizer, spaced.replace(REFUSING, "")).render([USER])
    assert read(tokenizer, spaced).render([USER]) == untouched


def test_what_was_amended_needs_no_further_amendment(tokenizer):
    read(tokenizer, REFUSING + PLAIN.removesuffix(PROMPT))
    amended = tokenizer.chat_template
    assert ChatTemplate(tokenizer).notes == []
    assert tokenizer.chat_template == amended


def test_messages_that_come_in_parts_are_left_to_the_template(tokenizer):
    in_parts = PLAIN.replace("{{ m.content }}", "{% for p in m.content %}{{ p.text }}{% endfor %}")
    template = read(tokenizer, REFUSING + in_parts)
    assert template.render([SYSTEM, USER]) == "<|user|>Search first.\n\nWho?<|end|><|assistant|>"
    given = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert template.render(given) == "<|user|>Hi<|end|><|assistant|>"


def test_a_template_without_a_generation_prompt_begins_answers_as_it_writes_them(tokenizer):
    template = read(tokenizer, PLAIN.removesuffix(PROMPT))
    assert "the model's turn starts with '<|assistant|>'" in template.notes[0]
    assert template.render([USER]) == "<|user|>Who?<|end|><|assistant|>"
    assert template.render([USER, ANSWER], prompt=False).endswith(" b<|end|>")


def test_a_heading_that_ends_in_a_blank_or_an_empty_thought_is_cut_there(tokenizer):
    text = (
        "{% for m in messages %}{% if m.role == 'assistant' %}BOT: <think>\n\n</think>\n\n"
        "{{ m.content }}\n{% else %}YOU: {{ m.content }}\n{% endif %}{% endfor %}"
    )
    assert read(tokenizer, text).render([USER]) == "YOU: Who?\nBOT:"


@pytest.mark.parametrize("blank", ["", " "])
def test_a_question_that_ends_with_what_an_answer_follows_needs_no_generation_prompt(
    tokenizer, blank
):
    text = (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        f"{blank}{{{{ m.content }}}}<|end|>"
        "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
    )
    template = read(tokenizer, text)
    assert template.notes == [] and tokenizer.chat_template == text


@pytest.mark.parametrize("end", ["<|assistant|>", "<|assistant|><think>\n"])
def test_a_generation_prompt_that_is_written_in_any_case_is_one(tokenizer, end):
    text = PLAIN.removesuffix(PROMPT) + f"{{{{ {end!r} }}}}"
    template = read(tokenizer, text)
    assert template.notes == [] and template.render([USER]) == f"<|user|>Who?<|end|>{end}"


def test_a_template_that_closes_the_chat_behind_the_question_is_refused(tokenizer):
    text = PLAIN.removesuffix(PROMPT) + "{{ eos_token }}!"
    with pytest.raises(
        PolicyError, match=r"has no generation prompt, and writes behind a question"
    ):
        read(tokenizer, text)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}\n{{ m.content }", r"fails \(line 2\): unexpected '}'"),
        ("{{ tools | length }}" + PLAIN, "fails: .*NoneType.* has no len"),
        ("{{ persona.name }}" + PLAIN, "fails: 'persona' is undefined"),
        ("{{ raise_exception('not for chats') }}", "fails: not for chats"),
        ("Hello", r"cannot hold a question: it changes or drops message 1 \(user\)"),
        ("{{ messages[0].content | upper }}", "cannot hold a question"),
        ("{{ messages | tojson }}", "cannot hold a question"),
        ("{{ messages[0].content[:5] }}", "cannot hold a question"),
        (None, "the tokenizer has no chat template; use an instruct model"),
        ({"rag": PLAIN, "tool_use": PLAIN}, "has the chat templates rag, tool_use, and none is"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(tokenizer, template, message):
    with pytest.raises(PolicyError, match=message) as caught:
        read(tokenizer, template)
    assert "\n" not in str(caught.value)
    assert "chat_template.jinja" in str(caught.value)


def test_of_named_templates_the_default_is_amended_and_the_others_are_kept(tokenizer):
    template = read(tokenizer, {"default": REFUSING + PLAIN, "tool_use": "tools"})
    assert tokenizer.chat_template["tool_use"] == "tools"
    assert template.render([SYSTEM, USER]).startswith("<|user|>Search first.")


def test_a_single_named_template_is_taken(tokenizer):
    assert read(tokenizer, {"chat": PLAIN}).render([USER]) == "<|user|>Who?<|end|><|assistant|>"


def test_a_token_that_the_tokenizer_does_not_have_is_left_out(tokenizer):
    assert tokenizer.bos_token is None
    template = read(tokenizer, "{{ bos_token + '' }}" + PLAIN)
    assert "it writes bos_token, which the tokenizer does not define" in template.notes[0]
    assert template.render([USER]) == "<|user|>Who?<|end|><|assistant|>"


def test_today_is_the_same_day_on_every_day(tokenizer):
    template = read(tokenizer, "<|system|>{{ strftime_now('%d %b %Y') }}<|end|>" + PLAIN)
    assert "infer uses today's, and every other command 2024-07-26" in template.notes[0]
    assert template.render([USER]).startswith("<|system|>26 Jul 2024<|end|>")
    template.today = date(2026, 11, 26)
    assert template.render([USER]).startswith("<|system|>26 Nov 2026<|end|>")


def test_marks_of_another_model_are_named(tokenizer):
    chatml = PLAIN.replace("<|{{ m.role }}|>", "<|im_start|>").replace("<|end|>", "<|im_end|>")
    template = read(tokenizer, chatml.replace("<|assistant|>", "<|im_start|>"))
    (note,) = template.notes
    assert "it writes <|im_start|> <|im_end|>, which the tokenizer cannot encode as single" in note
    assert template.turn_end is None


def test_marks_in_plain_words_beside_one_token_are_nothing_to_tell(tokenizer):
    assert read(tokenizer, PLAIN.replace("<|{{ m.role }}|>", "<|human|>")).notes == []


def test_marks_that_are_lost_as_unknown_are_named():
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "</s>": 1, "<pad>": 2}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", eos_token="</s>", pad_token="<pad>"
    )
    template = read(tokenizer, PLAIN.replace("<|end|>", "</s>"))
    assert (
        "it writes <|system|> <|user|> <|assistant|>, which the tokenizer cannot encode as text"
        in template.notes[0]
    )


@pytest.mark.parametrize(
    ("end", "found"),
    [("<|end|>", "<|end|>"), ("\n<|end|>\n", "<|end|>"), ("", "<|user|>"), (" END", None)],
)
def test_the_end_of_an_answer_is_read_off_the_template(tokenizer, end, found):
    template = read(tokenizer, PLAIN.replace("<|end|>", end))
    expected = None if found is None else tokenizer.convert_tokens_to_ids(found)
    assert template.turn_end == expected


def test_generation_stops_at_the_end_of_an_answer(tiny_policy):
    tokenizer = copy.deepcopy(tiny_policy.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|done|>"]})
    tokenizer.chat_template = PLAIN.replace("<|end|>", "<|done|>")
    policy = LocalPolicy(tiny_policy.model, tokenizer)
    done = tokenizer.convert_tokens_to_ids("<|done|>")
    assert policy.eos_ids == (tokenizer.eos_token_id, done)
    assert policy._cut([5, 6, done, 7], None, 4).stop == "eos"


def with_protocol(recipe: Recipe, open_thought: bool = False, **protocol: Any) -> Recipe:
    return recipe.model_copy(
        update={
            "protocol": recipe.protocol.model_copy(update=protocol),
            "rollout": recipe.rollout.model_copy(update={"open_thought": open_thought}),
        }
    )


def prompt_of(tokenizer: Any, template: str, recipe: Recipe) -> tuple[str, str, list[str]]:
    """The prompt of a question, what it opens, and what was told."""
    tokenizer.chat_template = template
    chat_tokenizer = ChatTokenizer(tokenizer)
    fitted, notes = fit_recipe(recipe, chat_tokenizer)
    prompt = render_question(Question("q", "Who?", ()), chat_tokenizer, fitted)
    return chat_tokenizer.decode(prompt.token_ids), prompt.opening, notes


FORGETFUL = PLAIN.replace(
    "m.content", "m.content.split('</think>')[-1] if m.role == 'assistant' else m.content"
)
ADDING = PLAIN.replace(
    "{{ m.content }}", "{% if m.role == 'assistant' %}<think>\n</think>{% endif %}{{ m.content }}"
)
ENDING = PLAIN.replace("{{ m.content }}", "{{ m.content[:40] if loop.index == 3 else m.content }}")
LAST_FIRST = (
    "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>"
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}"
    "{{ m.content }}<|end|>{% endfor %}" + PROMPT
)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (FORGETFUL, "it changes or drops message 3 (assistant)"),
        (ENDING, "it changes or drops message 3 (assistant)"),
        (ADDING, "it adds <think> to the assistant's messages"),
        (LAST_FIRST, "it changes or drops message 2 (user)"),
    ],
)
@pytest.mark.parametrize("prompt", [None, "Be brief."])
def test_examples_that_turns_cannot_hold_stand_in_the_system_prompt(
    tokenizer, quickstart, template, reason, prompt
):
    recipe = with_protocol(quickstart, example_turns=2, system_prompt=prompt)
    text, _, notes = prompt_of(tokenizer, template, recipe)
    assert notes == [
        f"chat template: it cannot hold worked examples as earlier turns ({reason}); examples in "
        "the system prompt replace them (protocol.example_turns)"
    ]
    assert "<think> First the author of Dracula, then where that person was born. </think>" in text
    assert text.count("<answer> Dublin </answer>") == 1
    # The built-in prompt has one example, and a prompt of one's own gets all that were asked for.
    assert text.count("<answer> yes </answer>") == (0 if prompt is None else 1)
    assert prompt is None or "<|system|>Be brief.\n\nExample:\n" in text or "<|user|>Be" in text
    assert text.count("<|assistant|>") == 1


def test_examples_are_kept_where_the_system_message_is_left_out(tokenizer, quickstart):
    recipe = with_protocol(quickstart, example_turns=1, system_prompt="")
    text, _, _ = prompt_of(tokenizer, FORGETFUL, recipe)
    assert text.startswith("<|system|>Example:\nIn which city was the author of Dracula born?\n")


def test_examples_that_turns_hold_stay_turns(tokenizer, quickstart):
    recipe = with_protocol(quickstart, example_turns=2, system_prompt=None)
    text, _, notes = prompt_of(tokenizer, REFUSING + PLAIN, recipe)
    assert text.count("<|assistant|><think>") == 2 and text.endswith("<|assistant|>")
    assert len(notes) == 1, "only that the system message is refused"


OPENED = PLAIN + "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}"
CLOSED = PLAIN + "{% if add_generation_prompt %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
SWITCHED = OPENED.replace(
    "'<think>\\n'", "'<think>\\n' if enable_thinking is true else '<think>\\n\\n</think>\\n\\n'"
)
PREFILLED = OPENED.replace("<think>\\n", "<think>\\nOkay, ")


@pytest.mark.parametrize(
    ("template", "open_thought", "end", "opening", "told"),
    [
        (PLAIN, False, "<|assistant|>", "", ""),
        (PLAIN, True, "<|assistant|><think>", "<think>", ""),
        (OPENED, False, "<|assistant|><think>\n", "<think>\n", ""),
        (OPENED, True, "<|assistant|><think>\n", "<think>\n", ""),
        (PREFILLED, False, "<think>\nOkay, ", "<think>\nOkay, ", ""),
        (CLOSED, False, "<think>\n\n</think>\n\n", "", "with rollout.open_thought=true that turn"),
        (CLOSED, True, "</think>\n\n<think>", "<think>", "opens another one behind it"),
        (
            SWITCHED,
            False,
            "<think>\n\n</think>\n\n",
            "",
            "with rollout.open_thought=true that turn",
        ),
        (SWITCHED, True, "<|assistant|><think>\n", "<think>\n", ""),
    ],
)
def test_the_last_position_is_what_was_meant(
    tokenizer, quickstart, template, open_thought, end, opening, told
):
    text, found, notes = prompt_of(tokenizer, template, with_protocol(quickstart, open_thought))
    assert text.endswith(end) and found == opening
    assert (told in notes[0]) if told else not notes


def test_a_tag_that_the_prompt_only_speaks_of_opens_nothing(tokenizer, quickstart):
    recipe = with_protocol(quickstart, system_prompt="Begin with <think> and end with </answer>.")
    assert prompt_of(tokenizer, PLAIN, recipe)[1] == ""


def test_a_system_prompt_of_the_template_s_own_is_told_where_none_was_wanted(tokenizer, quickstart):
    own = (
        "{% if messages[0].role != 'system' %}<|system|>You are a helpful assistant.<|end|>"
        "{% endif %}" + PLAIN
    )
    _, _, notes = prompt_of(tokenizer, own, with_protocol(quickstart, system_prompt=""))
    assert notes == [
        "chat template: protocol.system_prompt leaves the system message out, and the template "
        "writes one of its own ('You are a helpful assistant.')"
    ]
    assert prompt_of(tokenizer, own, with_protocol(quickstart, system_prompt="Search."))[2] == []
    assert prompt_of(tokenizer, PLAIN, with_protocol(quickstart, system_prompt=""))[2] == []


def test_a_blank_system_prompt_is_no_message_to_look_for(tokenizer, quickstart):
    recipe = with_protocol(quickstart, system_prompt="  ")
    assert prompt_of(tokenizer, PLAIN, recipe)[0].endswith("<|user|>Who?<|end|><|assistant|>")


def test_a_template_may_trim_what_it_is_given(tokenizer, quickstart):
    recipe = with_protocol(quickstart, system_prompt="Search first.\n", example_turns=1)
    trimming = PLAIN.replace("m.content", "m.content | trim")
    text, _, notes = prompt_of(tokenizer, trimming, recipe)
    assert "<|system|>Search first.<|end|>" in text and notes == []


def test_a_message_that_a_template_drops_later_is_refused(tokenizer):
    tokenizer.chat_template = PLAIN.replace("{{ m.content }}", "{{ m.content[:60] }}")
    with pytest.raises(PolicyError, match=r"is wrong: it changes or drops message 1 \(user\)"):
        ChatTokenizer(tokenizer).render([{"role": "user", "content": "x" * 61}])


def test_a_template_of_a_processor_is_read(tmp_path, quickstart):
    shutil.copytree(locate_model("builtin:nano"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": PLAIN}))
    recipe = quickstart.policy.model_copy(update={"model": str(tmp_path)})
    assert load_tokenizer(recipe).template.render([USER]) == "<|user|>Who?<|end|><|assistant|>"


@pytest.mark.parametrize("broken", ["{}", '{"version": "1.0", "added'])
def test_a_tokenizer_that_is_cut_off_is_one_line(tmp_path, quickstart, broken):
    shutil.copytree(locate_model("builtin:nano"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").write_text(broken)
    recipe = quickstart.policy.model_copy(update={"model": str(tmp_path)})
    with pytest.raises(PolicyError, match=f"the tokenizer of {tmp_path} could not be") as caught:
        load_tokenizer(recipe)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_an_end_of_sequence_is_refused(tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(PolicyError, match="has no end-of-sequence token; set eos_token in its"):
        ChatTokenizer(tokenizer)


def test_only_questions_that_could_be_too_long_are_encoded(tokenizer, quickstart):
    chat_tokenizer = ChatTokenizer(tokenizer)
    policy = quickstart.policy.model_copy(update={"max_seq_length": 200})
    asked: list[str] = []

    def encode(question: Question) -> Any:
        asked.append(question.id)
        return render_question(question, chat_tokenizer, quickstart)

    short = [Question(f"short {i}", "Who wrote it?", ()) for i in range(20)]
    long = [Question(f"long {i}", "Who wrote it? " * 60, ()) for i in range(3)]
    refuse_long_prompts(short, encode, policy)
    assert asked == ["probe"]
    with pytest.raises(
        PolicyError,
        match=r"question long 0 \(and 2 more like it\): its prompt has \d+ tokens, and "
        r"policy\.max_seq_length=200 leaves room for 198; raise it or drop the question",
    ):
        refuse_long_prompts([*short, *long], encode, policy)


@pytest.mark.parametrize("word", ["a", "é", "漢", "🧭", "ﷺ", "Ⅷ", "x1 "])
def test_the_longest_prompt_that_fits_is_let_through_and_the_next_is_not(
    tokenizer, quickstart, word
):
    chat_tokenizer = ChatTokenizer(tokenizer)

    def encode(question: Question) -> Any:
        return render_question(question, chat_tokenizer, quickstart)

    question = Question("q", word * 40, ())
    length = encode(question).tokens
    for most, fits in ((length + 2, True), (length + 1, False)):
        policy = quickstart.policy.model_copy(update={"max_seq_length": most})
        if fits:
            refuse_long_prompts([question], encode, policy)
        else:
            with pytest.raises(PolicyError, match=f"has {length:,} tokens"):
                refuse_long_prompts([question], encode, policy)
