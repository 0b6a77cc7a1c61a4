"""The half of a local policy that needs no weights: text to token ids and back.

Place in the path: under `LocalPolicy`; by itself it is all that `rsearch preview` needs to show
prompts. On failure: a tokenizer that cannot serve (no chat template, no distinct pad token) raises
`PolicyError` when this is made, before anything slow starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsearch_cli.errors import PolicyError

OPENINGS = ("<think>\n", "<think>")


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


class Tokenizing:
    """A tokenizer as a rollout uses it.

    Args:
        tokenizer: Gets a pad token of its own if it lacks one.

    Attributes:
        forbidden: Strings that would become a single added token; text from outside must not hold
            them (see `protocol.results.neutralise`).
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.chat_template is None:
            raise PolicyError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template; use an instruct "
                "model, or add chat_template.jinja to its folder"
            )
        ensure_pad_token(tokenizer)
        self.tokenizer = tokenizer
        added = tokenizer.get_added_vocab()
        self.forbidden = tuple(sorted(set(added) | set(tokenizer.all_special_tokens)))
        self._control_ids = set(tokenizer.all_special_ids)

    def encode_prompt(self, messages: list[dict[str, str]]) -> tuple[list[int], str]:
        """Render a chat as ids, ready for the model's turn.

        Returns:
            `[p]` ids, and what the template has already opened for the model (`<think>`), or "".
        """
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        opening = next((o for o in OPENINGS if text.endswith(o)), "")
        return self.tokenizer.encode(text, add_special_tokens=False), opening

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
