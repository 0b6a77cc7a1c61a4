"""Generation by vLLM inside the training process (`rollout.engine: vllm`).

Unsloth's `fast_inference` loads the frozen weights once, for vLLM and for training. The adapter is
not part of them, so it is sent with every call; the adapter check before training covers this path.

Written against unsloth 2026.10 and tested against a stand-in; not run on a GPU yet.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any, Self

from rsearch_cli.errors import EngineUnavailable
from rsearch_cli.policy.generation import Generation, Row, Sampling
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.recipe.policy import PolicyConfig, RolloutConfig


def check_engine(policy: PolicyConfig, rollout: RolloutConfig) -> None:
    """Refuse an engine that cannot run here.

    Raises:
        EngineUnavailable: vLLM, or something it needs, is missing.
    """
    if rollout.engine != "vllm":
        return
    from importlib.util import find_spec

    import torch

    reason = None
    if policy.backend == "transformers":
        reason = "it shares its weights with Unsloth, and policy.backend is transformers"
    elif not torch.cuda.is_available():
        reason = "it needs a CUDA device, and torch sees none"
    elif find_spec("vllm") is None:
        reason = "vllm is not installed (pip install vllm, in the release that unsloth names)"
    if reason:
        raise EngineUnavailable(f"rollout.engine: vllm: {reason}; use --set rollout.engine=local")


class VllmPolicy(LocalPolicy):
    """A policy whose model was loaded by Unsloth with `fast_inference`.

    Args:
        model: The PEFT model; it has `fast_generate` and `load_lora`.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer, "unsloth")
        self._folder = tempfile.TemporaryDirectory(prefix="rsearch-adapter-")

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any, backend: str, rollout: RolloutConfig) -> Self:
        """Make the policy of a model that Unsloth loaded with `fast_inference`."""
        return cls(model, tokenizer)

    def generate_rows(
        self, rows: Sequence[Row], cache: PrefixCache | None = None
    ) -> list[Generation]:
        """Continue every row as `LocalPolicy.generate_rows` does.

        vLLM caches prefixes by itself, so `cache` is not used, and does not stream here: `on_text`
        is not called.
        """
        parameters = [self._parameters(r.stops, r.max_new_tokens, r.sampling) for r in rows]
        completions = self._ask([row.token_ids for row in rows], parameters)
        return [_read(self, completion) for completion in completions]

    def sample_log_probs(self, context: Sequence[int], count: int) -> list[tuple[int, float]]:
        """Sample greedily on the code path of `generate`; return `(id, log-probability)` pairs."""
        from vllm import SamplingParams

        # 0 returns the log-probability of the sampled id only.
        parameters = SamplingParams(temperature=0.0, max_tokens=count, logprobs=0)
        completion = self._ask([context], [parameters])[0]
        return [
            (token, choices[token].logprob)
            for token, choices in zip(completion.token_ids, completion.logprobs, strict=True)
        ]

    def _ask(self, contexts: Sequence[Sequence[int]], parameters: list[Any]) -> list[Any]:
        # Without the request vLLM would silently sample from the base model.
        adapter = self.model.load_lora(os.path.join(self._folder.name, "now"), load_tensors=True)
        outputs = self.model.fast_generate(
            [{"prompt_token_ids": list(context)} for context in contexts],
            sampling_params=parameters,
            lora_request=adapter,
            use_tqdm=False,
        )
        return [output.outputs[0] for output in outputs]

    def _parameters(self, stops: Sequence[str], limit: int, sampling: Sampling) -> Any:
        import torch
        from vllm import SamplingParams

        seed = None
        if sampling.temperature > 0:
            # From the generator stored in checkpoints: a resumed run draws the same samples.
            seed = int(torch.randint(2**31 - 1, (1,)))
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=-1,
            seed=seed,
            max_tokens=limit,
            stop=list(stops),
            stop_token_ids=list(self.eos_ids),
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
        )


def _read(policy: LocalPolicy, completion: Any) -> Generation:
    """Convert a completion of vLLM, which includes the last token of a stop string."""
    ids = tuple(completion.token_ids)
    if isinstance(completion.stop_reason, str):
        return Generation(ids, policy.decode(ids), "tag")
    if ids and ids[-1] in policy.eos_ids:
        return Generation(ids, policy.decode(ids[:-1]), "eos")
    return Generation(ids, policy.decode(ids), "length")
