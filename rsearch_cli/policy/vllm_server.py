"""Generation by a vLLM server on its own cards, while this process trains (`vllm-server`).

The server holds the frozen base model. After every update the adapter is written to a folder that
both can access and loaded under a new name, so that no text comes from an older one. The server is
started as

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve BASE --enable-lora --max-lora-rank R

Written against vLLM's documented HTTP interface and tested against a server of our own.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from rsearch_cli.errors import EngineUnavailable
from rsearch_cli.policy.endpoint_tokenizers import VLLM_IDS
from rsearch_cli.policy.generation import GREEDY, Generation, Row, Sampling
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.recipe.policy import RolloutConfig
from rsearch_cli.services.http import open_blocking_client
from rsearch_cli.services.validation import is_finite

TIMEOUT_SECONDS = 1800.0
"""Time limit of one completion; a busy server queues requests."""

MAX_CONCURRENT = 256
"""Maximum number of requests in flight; vLLM batches them."""

# Raised while decoding a malformed answer.
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class VllmServerPolicy(LocalPolicy):
    """A policy that is trained here and generates on a vLLM server.

    Args:
        model: The PEFT model that is trained.
        tokenizer: Its tokenizer, which the server uses too.
        backend: Name of the back end that loaded it.
        rollout: Its `vllm_url` and `vllm_folder` are read.
    """

    def __init__(self, model: Any, tokenizer: Any, backend: str, rollout: RolloutConfig) -> None:
        import httpx

        super().__init__(model, tokenizer, backend)
        assert rollout.vllm_url is not None
        self._url = rollout.vllm_url.rstrip("/")
        self._folder = tempfile.TemporaryDirectory(
            prefix="rsearch-adapters-", dir=rollout.vllm_folder
        )
        self._http = open_blocking_client(
            timeout=TIMEOUT_SECONDS, transport=httpx.HTTPTransport(retries=3), trust_env=False
        )
        self._served: str | None = None
        self._count = 0

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any, backend: str, rollout: RolloutConfig) -> Self:
        """Make the policy of a model that is trained here and served at `rollout.vllm_url`."""
        return cls(model, tokenizer, backend, rollout)

    def generate_rows(
        self, rows: Sequence[Row], cache: PrefixCache | None = None
    ) -> list[Generation]:
        """Continue every row as `LocalPolicy.generate_rows` does.

        vLLM caches prefixes by itself, so `cache` is not used, and does not stream here: `on_text`
        is not called.

        Raises:
            EngineUnavailable: The server cannot be reached, or refuses a request.
        """
        self._serve_adapter()
        bodies = [self._body(r.token_ids, r.stops, r.max_new_tokens, r.sampling) for r in rows]
        with ThreadPoolExecutor(min(MAX_CONCURRENT, max(1, len(bodies)))) as senders:
            choices = list(senders.map(self._complete, bodies))
        return [self._read(choice) for choice in choices]

    def sample_log_probs(self, context: Sequence[int], count: int) -> list[tuple[int, float]]:
        """Sample greedily on the code path of `generate`; return `(id, log-probability)` pairs."""
        self._serve_adapter()
        choice = self._complete({**self._body(context, [], count, GREEDY), "logprobs": 0})
        try:
            values = choice["logprobs"]["token_logprobs"]
            if not all(map(is_finite, values)):
                raise TypeError("one is not a finite number")
            return list(zip(choice["token_ids"], values, strict=True))
        except _MALFORMED as error:
            raise EngineUnavailable(
                f"rollout.vllm_url: {hide_login(self._url)} sent a completion without log-"
                "probabilities; it must be a vLLM server that knows logprobs"
            ) from error

    @property
    def _name(self) -> str:
        return f"rsearch-{os.getpid()}-{self._count}"

    def _serve_adapter(self) -> None:
        """Load the current adapter into the server, unless it has it."""
        digest = _digest_adapter(self.model)
        if digest == self._served:
            return
        old, self._count = self._name, self._count + 1
        folder = Path(self._folder.name) / self._name
        self.model.save_pretrained(folder)
        self._post("/v1/load_lora_adapter", {"lora_name": self._name, "lora_path": str(folder)})
        if self._served is not None:
            self._post("/v1/unload_lora_adapter", {"lora_name": old})
        self._served = digest

    def _body(
        self, context: Sequence[int], stops: Sequence[str], limit: int, sampling: Sampling
    ) -> dict[str, Any]:
        import torch

        body: dict[str, Any] = {
            "model": self._name,
            "prompt": list(context),
            "max_tokens": limit,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(stops),
            "stop_token_ids": list(self.eos_ids),
            "include_stop_str_in_output": True,
            **VLLM_IDS,
        }
        if sampling.temperature > 0:
            # From the generator stored in checkpoints: a resumed run draws the same samples.
            body["seed"] = int(torch.randint(2**31 - 1, (1,)))
        return body

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        reply = self._post("/v1/completions", body)
        try:
            choice: dict[str, Any] = reply.json()["choices"][0]
            choice["token_ids"] = self._check_ids(choice["token_ids"], body["max_tokens"])
        except _MALFORMED as error:
            raise EngineUnavailable(
                f"rollout.vllm_url: {hide_login(self._url)} sent a completion without token "
                "ids; it must be a vLLM server that knows return_token_ids"
            ) from error
        return choice

    def _check_ids(self, ids: Any, most: int) -> list[int]:
        """Return ids if the model can have generated them.

        Raises:
            TypeError: Not a list of integers.
            ValueError: More than `most`, or one outside the vocabulary.
        """
        vocabulary = self.model.get_input_embeddings().num_embeddings
        if not isinstance(ids, list) or not all(type(i) is int for i in ids):
            raise TypeError("not a list of whole numbers")
        if len(ids) > most or not all(0 <= i < vocabulary for i in ids):
            raise ValueError(f"over {most} ids, or one that is not from 0 to {vocabulary - 1}")
        return ids

    def _read(self, choice: dict[str, Any]) -> Generation:
        """Convert a completion of vLLM, which includes the last token of a stop string."""
        ids = tuple(choice["token_ids"])
        if isinstance(choice.get("stop_reason"), str):
            return Generation(ids, self.decode(ids), "tag")
        if ids and ids[-1] in self.eos_ids:
            return Generation(ids, self.decode(ids[:-1]), "eos")
        return Generation(ids, self.decode(ids), "length")

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        import httpx

        try:
            reply = self._http.post(self._url + path, json=body)
        except httpx.HTTPError as error:
            raise EngineUnavailable(
                f"rollout.vllm_url: no answer from {hide_login(self._url)} "
                f"({type(error).__name__}); start the server, or use --set rollout.engine=local"
            ) from error
        if not reply.is_success:
            words = " ".join(reply.text.split())[:200]
            raise EngineUnavailable(
                f"rollout.vllm_url: {hide_login(self._url)}{path} answered "
                f"{reply.status_code} ({words}); it needs --enable-lora, a --max-lora-rank of at "
                "least policy.lora.r, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
            )
        return reply


def _digest_adapter(model: Any) -> str:
    """Hash the adapter's weights; fused optimisers do not update version counters."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            digest.update(weight.detach().contiguous().view(torch.uint8).cpu().numpy())
    return digest.hexdigest()
