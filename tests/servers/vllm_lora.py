"""A server that speaks the part of vLLM's HTTP interface that rollouts need, with a real model."""

from __future__ import annotations

import threading
from typing import Any

import torch
from local_http import Answer, LocalServer, Received

from rsearch_cli.policy.generation import Sampling
from rsearch_cli.policy.local import LocalPolicy

PAGE = "/v1/completions"


class VllmServer(LocalServer):
    """Serves a base model with adapters that are loaded while it runs.

    Args:
        policy: The base model, with an adapter of zero effect; no other may use it meanwhile.
        deaf: Leave every adapter out, as a server that is not set up for them might.
    """

    def __init__(self, policy: LocalPolicy, *, deaf: bool = False) -> None:
        super().__init__()
        self._policy = policy
        self._deaf = deaf
        self._guard = threading.Lock()
        self.adapters: dict[str, str] = {}

    def respond(self, request: Received) -> Answer:
        body = request.body
        if request.path == "/v1/load_lora_adapter":
            if body["lora_name"] in self.adapters:
                return 400, self.describe_error(400, "that name is loaded already")
            self.adapters[body["lora_name"]] = body["lora_path"]
            return 200, {"message": "Success: LoRA adapter added"}
        if request.path == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
            return 200, {"message": "Success: LoRA adapter removed"}
        assert request.path == PAGE
        if body["model"] not in self.adapters:
            return 404, self.describe_error(404, f"The model {body['model']} does not exist.")
        with self._guard:
            return 200, {"object": "text_completion", "choices": [self._complete(body)]}

    def describe_error(self, status: int, message: str) -> Any:
        return {"error": {"message": message, "type": "BadRequestError", "code": status}}

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        policy = self._policy
        if not self._deaf:
            active = policy.model.active_adapter
            policy.model.load_adapter(self.adapters[body["model"]], active, is_trainable=False)
        assert body["return_token_ids"] and body["include_stop_str_in_output"]
        if "logprobs" in body:
            sampled = policy.sample_log_probs(body["prompt"], body["max_tokens"])
            values = [value for _, value in sampled]
            ids = [token for token, _ in sampled]
            return {"token_ids": ids, "logprobs": {"token_logprobs": values}, "stop_reason": None}
        sampling = Sampling(body["temperature"], body["top_p"])
        with torch.random.fork_rng(devices=[]):
            # As vLLM: a request's seed alone decides, in whatever order the requests arrive.
            torch.manual_seed(body.get("seed", 0))
            [written] = policy.generate_ids(
                [body["prompt"]], body["stop"], [body["max_tokens"]], sampling
            )
        ended = [stop for stop in body["stop"] if written.text.endswith(stop)]
        return {
            "text": written.text,
            "token_ids": list(written.token_ids),
            "stop_reason": ended[0] if written.stop == "tag" else None,
            "finish_reason": "length" if written.stop == "length" else "stop",
        }
