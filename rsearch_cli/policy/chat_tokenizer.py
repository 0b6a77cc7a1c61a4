"""The half of a local policy that needs no weights: text to token ids and back.

Commands make it before they load a model, so that a tokenizer that cannot be used (no chat
template, no distinct pad token) raises `PolicyError` before anything slow starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.chat_template import Chat, ChatTemplate, find_opening


def ensure_pad_token(tokenizer: Any) -> None:
    """Give the tokenizer a pad token that is not its end-of-sequence token.

    With pad = eos, left-packing and truncation tests cannot tell the end of an answer from padding.
    A pad token the vocabulary already has is taken; the embedding is never resized.

    Raises:
        PolicyError: If the vocabulary has no token to spare.
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
    """A tokenizer as a rollout uses it.

    Args:
        tokenizer: Gets a pad token of its own if it lacks one, and its chat template is amended
            where it cannot hold a chat (see `ChatTemplate`).

    Attributes:
        template: The chat template.
        forbidden: Strings that would become a single added token; text from outside must not hold
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

    def encode_prompt(self, messages: Chat) -> tuple[list[int], str]:
        """Render a chat as ids, ready for the model's turn.

        Returns:
            `[p]` ids, and what the template has already opened for the model (`<think>`), or "".

        Raises:
            PolicyError: The template does not render every message whole and in order.
        """
        text = self.template.render(messages)
        if loss := self.template.describe_loss(messages, text):
            raise PolicyError(f"{self.tokenizer.name_or_path}: the chat template is wrong: {loss}")
        return self.tokenizer.encode(text, add_special_tokens=False), find_opening(messages, text)

    def encode_inserted(self, text: str) -> list[int]:
        """Encode text that the system puts into a completion; `[l]` ids, no control token."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [i for i in ids if i not in self._control_ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, exactly, special tokens included."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )
