"""A tokenizer with its chat template: the half of a local policy that needs no weights.

Commands create it before they load a model, so that a tokenizer that cannot be used (no chat
template, no separate pad token) fails before anything slow starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.chat_template import Chat, ChatTemplate, find_opening
from rsearch_cli.policy.generation import Prompt
from rsearch_cli.protocol.transcript import THINK
from rsearch_cli.types import Segment


def ensure_pad_token(tokenizer: Any) -> None:
    """Give the tokenizer a pad token that differs from its end-of-sequence token.

    With pad = eos, left-packing and truncation checks cannot tell the end of an answer from
    padding. The pad token is taken from the vocabulary; the embedding is never resized.

    Raises:
        PolicyError: The vocabulary has no token to spare.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    spare = [t for t in tokenizer.get_added_vocab() if "pad" in t.lower()]
    spare += [tokenizer.unk_token] if tokenizer.unk_token else []
    for token in spare:
        if tokenizer.convert_tokens_to_ids(token) != tokenizer.eos_token_id:
            tokenizer.pad_token = token
            return
    raise PolicyError(
        f"{tokenizer.name_or_path}: the tokenizer has no pad token apart from its end-of-sequence "
        f"token {tokenizer.eos_token!r}; set pad_token in its tokenizer_config.json"
    )


class ChatTokenizer:
    """Turns chats and inserted text into token ids, and ids into text.

    Args:
        tokenizer: Receives a pad token of its own if it lacks one; its chat template is amended
            where it cannot hold our chats (see `ChatTemplate`).

    Attributes:
        template: The chat template.
        forbidden: Strings that would become a single added token; outside text must not contain
            them (see `protocol.results.neutralise`).
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise PolicyError(
                f"{tokenizer.name_or_path}: the tokenizer has no end-of-sequence token; set "
                "eos_token in its tokenizer_config.json"
            )
        ensure_pad_token(tokenizer)
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer)
        added = tokenizer.get_added_vocab()
        self.forbidden = tuple(sorted(set(added) | set(tokenizer.all_special_tokens)))
        self._control_ids = set(tokenizer.all_special_ids)

    @property
    def eos_id(self) -> int:
        """The end-of-sequence id that closes a finished row."""
        return int(self.tokenizer.eos_token_id)

    def render(self, messages: Chat, *, open_thought: bool = False) -> Prompt:
        """Render a chat for the model's turn, with `[p]` ids.

        Raises:
            PolicyError: The template drops or reorders a message.
        """
        text = self.template.render(messages)
        if loss := self.template.describe_loss(messages, text):
            raise PolicyError(f"{self.tokenizer.name_or_path}: the chat template is wrong: {loss}")
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        opening = find_opening(messages, text)
        if added := open_thought and not opening:
            opening = THINK
            ids += self.encode(opening)
        return Prompt(tuple(messages), tuple(ids), opening, added)

    def insert(self, text: str, limit: int) -> Segment:
        """Make a segment of text that the system writes, cut to `limit` tokens."""
        ids = self.encode(text)[:limit]
        return Segment(self.decode(ids), tuple(ids), "system")

    def encode(self, text: str) -> list[int]:
        """Encode text of the system: `[l]` ids, without control tokens."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [i for i in ids if i not in self._control_ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, exactly, special tokens included."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )
