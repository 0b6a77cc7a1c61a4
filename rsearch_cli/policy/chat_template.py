"""Check chat templates before a model is loaded, and amend those that cannot hold our chats.

An amendment is Jinja before or after the template. It is stored with the tokenizer, so that what is
saved and published with an adapter renders the chats that the adapter was trained on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from rsearch_cli.errors import PolicyError
from rsearch_cli.protocol.transcript import TAG
from rsearch_cli.runs.json_text import dump_json

Chat = list[dict[str, str]]

FIXED_DAY = date(2024, 7, 26)
"""Passed to templates that write today's date; Llama 3.1 falls back to this day by itself."""

# With tags, like real system prompts: templates search for them in messages of any role.
_SYSTEM = {"role": "system", "content": "<think> probe </think> <answer> instructions </answer>"}
# With what a template that writes JSON or the like would escape.
_USER = {"role": "user", "content": 'probe question\n& it\'s "second" line'}
_ANSWER = {"role": "assistant", "content": "probe answer"}

_OPENED = re.compile(r"<think>(?:(?!</?think>).)*\Z", re.DOTALL)
_CLOSED = re.compile(r"<think>\s*</think>\s*\Z")
_MARK = re.compile(r"(?<!<)<[^<>\s]{1,60}>(?!>)")

# After it, trim_blocks does not remove a line break at the start of the template.
_BOUNDARY = "{{ '' }}"
_FOLD_SYSTEM = (
    "{% if messages | length > 1 and messages[0]['role'] == 'system' and "
    "messages[0]['content'] is string and messages[1]['content'] is string %}"
    "{% set messages = [dict(messages[1], content="
    r"messages[0]['content'] + '\n\n' + messages[1]['content'])] + messages[2:] %}{% endif %}"
)
_TO_PARTS = (
    "{% set whole = namespace(messages=[]) %}{% for message in messages %}"
    "{% if message['content'] is string %}{% set message = "
    "dict(message, content=[{'type': 'text', 'text': message['content']}]) %}{% endif %}"
    "{% set whole.messages = whole.messages + [message] %}{% endfor %}"
    "{% set messages = whole.messages %}"
)
_THINK_SWITCHES = ("enable_thinking", "thinking")


def find_opening(chat: Chat, prompt: str) -> str:
    """Return what a rendered chat has opened for the model: `<think>` and what follows, or ""."""
    opened = _OPENED.search(prompt.rpartition(chat[-1]["content"].strip())[2])
    return opened[0] if opened else ""


class ChatTemplate:
    """The chat template of a tokenizer, which is amended in place.

    Attributes:
        notes: Limitations and how they are worked around, one line each.
        today: The date passed to templates that write one.
        turn_end: Id of the token that ends an answer; None if it is not a single token.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Check and amend the template.

        Raises:
            PolicyError: There is no template, or it cannot render a question.
        """
        self._tokenizer = tokenizer
        self.notes: list[str] = []
        self.today = FIXED_DAY
        self._require_one()
        self._hold_question()
        self._hold_system()
        self._begin_answer()
        self._note_date()
        self._note_marks()
        self.turn_end = self._find_turn_end()

    def render(self, chat: Chat, *, prompt: bool = True) -> str:
        """Render a chat.

        Args:
            chat: Messages with `role` and `content`.
            prompt: Append the generation prompt.

        Raises:
            PolicyError: The template fails.
        """
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    chat,
                    tokenize=False,
                    add_generation_prompt=prompt,
                    strftime_now=self.today.strftime,
                )
            )
        except Exception as error:  # templates are programs and raise anything
            line = getattr(error, "lineno", None)
            where = f" (line {line})" if line else ""
            reason = " ".join(str(error).split()) or type(error).__name__
            raise self._unusable(f"fails{where}: {reason}") from error

    @staticmethod
    def describe_loss(chat: Chat, prompt: str) -> str | None:
        """Compare a rendered chat with its messages.

        Every content must appear complete and in order, apart from white space at its ends, and no
        protocol tag may be added to an answer.

        Returns:
            The problem, or None.
        """
        frames, rest = [], prompt
        for number, message in enumerate(chat):
            content = message["content"].strip()
            frame, found, rest = rest.partition(content) if content else ("", " ", rest)
            if not found:
                return f"it changes or drops message {number + 1} ({message['role']})"
            frames.append(frame)
        for message, before, after in zip(chat, frames, [*frames[1:], rest], strict=True):
            if message["role"] == "assistant" and (tag := TAG.search(before) or TAG.search(after)):
                return f"it adds {tag[0]} to the assistant's messages"
        return None

    def describe_problem(self, chat: Chat) -> str | None:
        """Return why a chat is not rendered faithfully, or None."""
        try:
            return self.describe_loss(chat, self.render(chat))
        except PolicyError as error:
            return str(error.__cause__)

    def begin_with_thought(self) -> str | None:
        """Make the model's turn start with an open thought if the template closes an empty one.

        Returns:
            A note if that is not possible, or None.
        """
        if not self.closes_thought():
            return None
        for switch in _THINK_SWITCHES:
            with_switch = self._amended(before=f"{{% set {switch} = true %}}")
            kept, self._template = self._template, with_switch
            if not self.closes_thought():
                return None
            self._template = kept
        return (
            "chat template: an empty thought is closed before the model's turn, and "
            "rollout.open_thought opens another one behind it"
        )

    def closes_thought(self) -> bool:
        """Whether the model's turn starts after an empty thought (thinking switched off)."""
        return _CLOSED.search(self.render([_USER])) is not None

    def own_instructions(self) -> str:
        """Return the system prompt that the template adds to a chat without one, or ""."""
        bare = self.render([_USER]).partition(_USER["content"])[0]
        before, _, rest = self.render([_SYSTEM, _USER]).partition(_SYSTEM["content"])
        between = rest.partition(_USER["content"])[0]
        start = _common_length(bare, before)
        end = _common_length(bare[start:][::-1], between[::-1])
        own = bare[start : len(bare) - end].strip()
        return own if re.search(r"\w", _MARK.sub("", own)) else ""

    @property
    def _template(self) -> str:
        """The template that renders chats without tools."""
        return str(self._tokenizer.get_chat_template())

    @_template.setter
    def _template(self, text: str) -> None:
        named = self._tokenizer.chat_template
        self._tokenizer.chat_template = (
            {**named, "default": text} if isinstance(named, dict) else text
        )

    def _amended(self, before: str = "", behind: str = "") -> str:
        template = self._template
        if behind:
            # Jinja drops one line break at the end of a template.
            template = template.removesuffix("\n") + _BOUNDARY + behind
        return f"{before}{_BOUNDARY}{template}" if before else template

    def _require_one(self) -> None:
        named, name = self._tokenizer.chat_template, self._tokenizer.name_or_path
        if not named:
            raise PolicyError(
                f"{name}: the tokenizer has no chat template; use an instruct model, or add "
                "chat_template.jinja to its folder"
            )
        if isinstance(named, dict) and "default" not in named:
            if len(named) > 1:
                raise PolicyError(
                    f"{name}: the tokenizer has the chat templates {', '.join(sorted(named))}, and "
                    "none is called default; put the one to use into its folder, as "
                    "chat_template.jinja"
                )
            self._tokenizer.chat_template = next(iter(named.values()))

    def _try(self, chat: Chat, amendments: Iterable[str]) -> str | None:
        """Apply the first amendment with which a chat is rendered faithfully.

        Returns:
            The amendment; None if none helps, and the template is unchanged.
        """
        original = self._template
        for amendment in amendments:
            self._template = original
            self._template = self._amended(before=amendment)
            if self.describe_problem(chat) is None:
                return amendment
        self._template = original
        return None

    def _hold_question(self) -> None:
        """Make sure that a single question is rendered: as a string, or else as a list of parts."""
        named = ("bos_token", "unk_token", "pad_token", "sep_token", "cls_token")
        missing = [
            name for name in named if name in self._template and not getattr(self._tokenizer, name)
        ]
        empty = "".join(f"{{% set {name} = {name} | default('') %}}" for name in missing)
        taken = self._try([_USER], dict.fromkeys(("", empty, _TO_PARTS, empty + _TO_PARTS)))
        if taken is None:
            wrong = self.describe_loss([_USER], self.render([_USER]))
            raise self._unusable(f"cannot hold a question: {wrong}")
        if empty and taken.startswith(empty):
            self.notes.append(
                f"chat template: it writes {' and '.join(missing)}, which the tokenizer does not "
                "define; nothing is written there"
            )

    def _hold_system(self) -> None:
        """Make sure that system messages are rendered, or else prepend them to the question."""
        chat = [_SYSTEM, _USER]
        problem = self.describe_problem(chat)
        if problem is None:
            return
        if self._try(chat, (_FOLD_SYSTEM,)) is None:
            raise self._unusable(f"cannot hold a system prompt: {problem}")
        self.notes.append(
            f"chat template: it takes no system message ({problem}); the system prompt is "
            "prepended to the first question instead"
        )

    def _begin_answer(self) -> None:
        """Add a generation prompt if the template has none, by the way it renders answers."""
        prompt = self.render([_USER])
        if prompt != self.render([_USER], prompt=False):
            return
        before, _ = self._around_answer([_USER, _ANSWER])
        if before is None:
            self.notes.append(
                "chat template: it has no generation prompt; the model continues right after the "
                "question"
            )
            return
        if prompt.startswith(before):
            return  # always written, possibly with an opened thought
        if not before.startswith(prompt):
            raise self._unusable(
                "has no generation prompt, and writes behind a question what does not stand "
                "between question and answer"
            )
        # Most tokenizers join a space to the word that follows.
        heading = _CLOSED.sub("", before.removeprefix(prompt)).rstrip(" ")
        if not heading.strip():
            return  # answers directly follow the marker behind a question, as in Mistral's template
        literal = dump_json(heading)
        self._template = self._amended(
            behind=f"{{% if add_generation_prompt %}}{{{{ {literal} }}}}{{% endif %}}"
        )
        self.notes.append(
            "chat template: it has no generation prompt; the model's turn starts with "
            f"{heading!r}, like its answers"
        )

    def _around_answer(self, chat: Chat) -> tuple[str, str] | tuple[None, str]:
        """Return the text before and after the answer of a chat; None if it cannot be rendered."""
        try:
            before, found, behind = self.render(chat, prompt=False).partition(_ANSWER["content"])
        except PolicyError:
            return None, ""
        return (before, behind) if found else (None, "")

    def _find_turn_end(self) -> int | None:
        tokenizer = self._tokenizer
        single = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
        # Some templates only end an answer when the next message starts.
        for chat in ([_USER, _ANSWER], [_USER, _ANSWER, _USER]):
            _, behind = self._around_answer(chat)
            if first := tokenizer.encode(behind.lstrip(), add_special_tokens=False)[:1]:
                return int(first[0]) if first[0] in single else None
        return None

    def _note_date(self) -> None:
        other = self.today.replace(year=self.today.year - 1)
        texts = []
        for day in (other, self.today):
            self.today = day
            texts.append(self.render([_USER]))
        if texts[0] != texts[1]:
            self.notes.append(
                f"chat template: it writes the date; infer uses today's, and every other command "
                f"{self.today.isoformat()}, so that results are reproducible on any day"
            )

    def _note_marks(self) -> None:
        """Check that the markers between messages are tokens of this model."""
        tokenizer = self._tokenizer
        text = self.render([_SYSTEM, _USER])
        marks = [m for m in dict.fromkeys(_MARK.findall(text)) if not TAG.fullmatch(m)]
        encoded = [tokenizer.encode(mark, add_special_tokens=False) for mark in marks]
        unknown = tokenizer.unk_token_id
        lost = [mark for mark, ids in zip(marks, encoded, strict=True) if unknown in ids]
        if marks and (lost or all(len(ids) > 1 for ids in encoded)):
            self.notes.append(
                f"chat template: it writes {' '.join((lost or marks)[:3])}, which the tokenizer "
                f"cannot encode as {'text' if lost else 'single tokens'}; check that the template "
                "belongs to this model"
            )

    def _unusable(self, why: str) -> PolicyError:
        return PolicyError(
            f"{self._tokenizer.name_or_path}: its chat template {why}; put another one into its "
            "folder as chat_template.jinja"
        )


def _common_length(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the common prefix."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
