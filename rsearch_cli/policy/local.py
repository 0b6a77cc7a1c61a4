"""A policy on local weights: batched generation over token ids.

Text is decoded for reading only and never encoded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from rsearch_cli.errors import OutOfMemory, is_shortage, shortage
from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.generation import GREEDY, Context, Generation, OnText, Row, Sampling
from rsearch_cli.policy.prefix_cache import Inputs, PrefixCache, pad_left
from rsearch_cli.policy.row_sampling import RowSampling
from rsearch_cli.policy.stopping import TagStop, TextStream
from rsearch_cli.recipe.policy import RolloutConfig


class LocalPolicy(ChatTokenizer):
    """A causal language model with its tokenizer.

    Args:
        model: A transformers or PEFT model; training changes it in place.
        tokenizer: Its tokenizer; receives a pad token of its own if it lacks one.
        backend: Name of the back end that loaded it.

    Attributes:
        backend_reason: Why this back end was chosen, for the log.
    """

    def __init__(self, model: Any, tokenizer: Any, backend: str = "transformers") -> None:
        super().__init__(tokenizer)
        self.model = model
        self.backend = backend
        self.backend_reason = "chosen by the caller"
        eos = model.generation_config.eos_token_id
        eos = [eos] if isinstance(eos, int) else list(eos or [])
        # Many models' own lists lack the token with which their chat template ends an answer.
        turn_end = [] if self.template.turn_end is None else [self.template.turn_end]
        self.eos_ids = tuple(dict.fromkeys([self.eos_id, *eos, *turn_end]))
        _drop_shipped_settings(model, list(self.eos_ids), tokenizer.pad_token_id)

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any, backend: str, rollout: RolloutConfig) -> Self:
        """Make the policy of an engine from a loaded model; `rollout` has the engine's settings."""
        return cls(model, tokenizer, backend)

    def generate(
        self,
        contexts: Sequence[Context],
        stops: Sequence[str],
        max_new_tokens: Sequence[int],
        sampling: Sampling = GREEDY,
        cache: PrefixCache | None = None,
        on_text: OnText | None = None,
    ) -> list[Generation]:
        """Continue `[B]` contexts by their ids; see `generate_ids`."""
        ids = [context.token_ids for context in contexts]
        return self.generate_ids(ids, stops, max_new_tokens, sampling, cache, on_text)

    def generate_ids(
        self,
        contexts: Sequence[Sequence[int]],
        stops: Sequence[str],
        max_new_tokens: Sequence[int],
        sampling: Sampling = GREEDY,
        cache: PrefixCache | None = None,
        on_text: OnText | None = None,
    ) -> list[Generation]:
        """Continue every context until a stop string, end of sequence or its own limit.

        Args:
            contexts: `[B]` lists of ids, ragged.
            stops: Strings such as `</search>`.
            max_new_tokens: `[B]` limits, each at least 1.
            sampling: Greedy by default.
            cache: See `generate_rows`.
            on_text: With one row, called with all of its text after every token.

        Returns:
            `[B]` generations, in the order of the contexts.

        Raises:
            OutOfMemory: The rows do not fit into the device's memory.
        """
        rows = zip(contexts, max_new_tokens, strict=True)
        return self.generate_rows(
            [Row(ids, stops, limit, sampling, on_text) for ids, limit in rows], cache
        )

    def generate_rows(
        self, rows: Sequence[Row], cache: PrefixCache | None = None
    ) -> list[Generation]:
        """Continue every row until one of its stop strings, end of sequence or its limit.

        Args:
            rows: `[B]` rows, ragged; padded on the left here.
            cache: What the previous call left for these rows; receives what this call leaves.
                Unsloth's own decoding on a GPU returns nothing that could be kept.

        Returns:
            `[B]` generations, in order.

        Raises:
            OutOfMemory: The rows do not fit into the device's memory.
        """
        pad = self.tokenizer.pad_token_id
        contexts = [row.token_ids for row in rows]
        try:
            inputs = cache.resume(contexts, pad) if cache else None
            inputs = inputs or pad_left(contexts, pad, self.model.device)
            width = inputs.ids.shape[1]
            tag_stop = TagStop(self.tokenizer, rows, width)
            stopping: list[Any] = [tag_stop]
            if any(row.on_text for row in rows):
                stopping.append(TextStream(self.decode, rows, width, self.eos_ids, tag_stop.done))
            output = self._run_model(inputs, rows, stopping)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            raise OutOfMemory(shortage(error)) from error
        new = output.sequences[:, width:].tolist()
        written = [
            self._cut(ids, tag_stop.ends.get(i), row.max_new_tokens)
            for i, (ids, row) in enumerate(zip(new, rows, strict=True))
        ]
        if cache:
            kept = [generation.token_ids for generation in written]
            cache.keep(contexts, kept, inputs.mask, output.past_key_values)
        return written

    def sample_log_probs(self, context: Sequence[int], count: int) -> list[tuple[int, float]]:
        """Sample greedily on the code path of `generate`; return `(id, log-probability)` pairs.

        Args:
            context: `[p]` ids.
            count: Maximum number of ids.
        """
        import torch

        inputs = pad_left([context], self.tokenizer.pad_token_id, self.model.device)
        output = self._run_model(inputs, [Row(context, (), count)], [], output_logits=True)
        logits = torch.cat(list(output.logits)).double()
        ids = output.sequences[0, len(context) :]
        chosen = logits.log_softmax(dim=-1).gather(1, ids[:, None].to(logits.device))
        return list(zip(ids.tolist(), chosen[:, 0].tolist(), strict=True))

    def without_adapter(self) -> AbstractContextManager[None]:
        """Generate with the base weights inside a `with` block."""
        disable = getattr(self.model, "disable_adapter", None)  # a method of PEFT models
        return disable() if disable else nullcontext()

    def active(self) -> AbstractContextManager[None]:
        """Apply the environment variables that the back end needs while it trains."""
        if self.backend == "unsloth":
            from rsearch_cli.compat.unsloth import unsloth_environment

            return unsloth_environment()
        return nullcontext()

    def _run_model(
        self, inputs: Inputs, rows: Sequence[Row], stopping: list[Any], **options: Any
    ) -> Any:
        samplings = [row.sampling for row in rows]
        alike = len(set(samplings)) == 1
        config = self._generation_config(
            max(row.max_new_tokens for row in rows),
            samplings[0] if alike else Sampling(1.0),
            **options,
        )
        with self._inference():
            return self.model.generate(
                input_ids=inputs.ids,
                attention_mask=inputs.mask,
                past_key_values=inputs.past,
                generation_config=config,
                stopping_criteria=stopping,
                logits_processor=[] if alike else [RowSampling(samplings)],
            )

    def _generation_config(self, max_new_tokens: int, sampling: Sampling, **options: Any) -> Any:
        """Build the complete configuration; nothing is left to the model's own defaults."""
        from transformers import GenerationConfig

        chosen: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            chosen = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": 0,
            }
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            eos_token_id=list(self.eos_ids),
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            return_dict_in_generate=True,
            **chosen,
            **options,
        )

    def _cut(self, row: list[int], tag_end: int | None, limit: int) -> Generation:
        """Cut a row at its first stop; the rest is padding or surplus."""
        eos_at = next((i for i, token in enumerate(row) if token in self.eos_ids), None)
        if tag_end is not None and tag_end <= limit and (eos_at is None or eos_at >= tag_end):
            ids = row[:tag_end]
            return Generation(tuple(ids), self.decode(ids), "tag")
        if eos_at is not None and eos_at < limit:
            return Generation(tuple(row[: eos_at + 1]), self.decode(row[:eos_at]), "eos")
        return Generation(tuple(row[:limit]), self.decode(row[:limit]), "length")

    def _inference(self) -> Any:
        """Switch the model to inference inside a `with` block."""
        if self.backend == "unsloth":
            from rsearch_cli.policy.unsloth_backend import inference_mode
        else:
            from rsearch_cli.policy.transformers_backend import inference_mode
        return inference_mode(self.model)


def _drop_shipped_settings(model: Any, eos_ids: list[int], pad_id: int) -> None:
    """Remove the sampling settings that a model ships, such as a repetition penalty.

    `generate` uses them for whatever its caller leaves open: samples would come from a different
    distribution than the loss assumes, and greedy decoding would not be greedy.
    """
    from transformers import GenerationConfig

    config = GenerationConfig(eos_token_id=eos_ids, pad_token_id=pad_id)
    model.generation_config = config
    if hasattr(model, "get_base_model"):
        model.get_base_model().generation_config = config
