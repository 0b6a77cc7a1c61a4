"""`rsearch serve` under load: 64 clients at once against the same requests one after another.

Run `python benchmarks/serve_load.py` in a checkout where rsearch is installed; it takes two to
three minutes on two cores. A server of its own answers with the built-in model, over loopback.
Each question is asked alone, one after another; then 64 clients ask them all the time for 60 s;
then each is asked alone again, so that other load on the machine falls on both. Every answer is
compared with the answer to the same question asked alone. At the end, SIGTERM comes while all
clients ask: what the server has accepted must be answered whole. The last line on stdout is one
JSON object, which `--output` also writes to a file; the exit code is 1 if a request was lost, mixed
up or cut off, or if the ratio is below `--least-ratio`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.recipe.loading import load_recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "servers"))

from served_agent import ServedAgent, serve_agent

TIMEOUT = 300.0
MOST_REQUESTS = 100_000
STOP_AFTER = 5.0
REFUSALS = ("ValueError: status 503", "ConnectError", "ReadError", "RemoteProtocolError: Server d")
"""How errors begin of requests that were not accepted: they were answered with 503, or they were on
their way as the server closed its connections, and got no byte of a response."""


@dataclass(slots=True)
class Figures:
    """What some requests took, and what came back.

    Attributes:
        replies: Question, answer and plans of every reply.
        errors: What went wrong instead of a reply.
        latencies: Seconds of every reply.
        seconds: From the first request to the last reply.
        cpu_seconds: Of the server meanwhile.
    """

    replies: list[tuple[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Replies a second."""
        return len(self.replies) / self.seconds

    def percentile(self, percent: int) -> float:
        """The latency that `percent` of the replies did not exceed."""
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64, help="clients at once (default 64)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load (default 60)")
    parser.add_argument("--questions", type=int, default=32, help="different ones (default 32)")
    parser.add_argument("--stream", action="store_true", help="read replies as they are written")
    parser.add_argument("--threads", type=int, default=None, help="OMP_NUM_THREADS of the server")
    parser.add_argument("--least-ratio", type=float, default=4.0, help="(default 4)")
    parser.add_argument("--output", type=Path, help="file for the result")
    args = parser.parse_args()
    recipe = load_recipe("quickstart").recipe
    world = open_question_set(recipe.questions, recipe.seed)
    questions = [question.text for question in world.load("test", args.questions)]
    with tempfile.TemporaryDirectory() as folder:
        environment = {f"RSEARCH_{name}_DIR": f"{folder}/{name}" for name in ("CACHE", "STATE")}
        if args.threads is not None:
            environment["OMP_NUM_THREADS"] = str(args.threads)
        waiting = f"--max-waiting={args.clients}"
        with serve_agent(waiting, world=(), environment=environment) as server:
            result = asyncio.run(measure(server, questions, args))
            result["stopped"] = asyncio.run(stop_under_load(server, questions, args.clients))
    line = json.dumps(result)
    print(line)
    if args.output is not None:
        args.output.write_text(line + "\n", encoding="utf-8")
    stopped = result["stopped"]
    good = not (result["lost"] or result["mixed_up"] or stopped["cut_off"] or stopped["exit_code"])
    sys.exit(0 if good and result["ratio"] >= args.least_ratio else 1)


async def measure(
    server: ServedAgent, questions: Sequence[str], args: argparse.Namespace
) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=args.clients)
    transport = httpx.AsyncHTTPTransport(limits=limits)
    async with httpx.AsyncClient(
        base_url=server.url, timeout=TIMEOUT, transport=transport, trust_env=False
    ) as http:
        process = server.process.pid
        await ask_in_turn(http, questions, args.stream, process)  # fills the cache; not counted
        before = await ask_in_turn(http, questions, args.stream, process)
        if before.errors:
            sys.exit(f"asked one after another, {len(before.errors)} fail: {before.errors[0]}")
        say(f"one after another: {before.rate:.1f} requests/s")
        batches = count_batches(server)
        memory = asyncio.create_task(watch_memory(process, args.seconds))
        load = await ask_at_once(http, questions, args, process)
        batches = [now - then for now, then in zip(count_batches(server), batches, strict=True)]
        say(f"{args.clients} clients: {load.rate:.1f} requests/s")
        after = await ask_in_turn(http, questions, args.stream, process)
        resident = await memory
    return report(args, [before, after], load, batches, resident)


def cpu_ms(figures: Figures) -> float:
    """Time of the server on the processor for each reply, in milliseconds."""
    return 1000 * figures.cpu_seconds / len(figures.latencies)


def count_batches(server: ServedAgent) -> list[float]:
    """Return the rows and the number of all batches so far."""
    return [server.metric(f"rsearch_batch_rows_{part}") for part in ("sum", "count")]


def report(
    args: argparse.Namespace,
    alone: Sequence[Figures],
    load: Figures,
    batches: Sequence[float],
    resident: Sequence[int],
) -> dict[str, Any]:
    expected = dict(alone[0].replies)
    different = [
        (question, reply) for question, reply in load.replies if reply != expected[question]
    ]
    of_others = {json.dumps(reply) for reply in expected.values()}
    mixed_up = [question for question, reply in different if json.dumps(reply) in of_others]
    rows = batches[0] / max(1, batches[1])
    alone_rate = sum(len(f.replies) for f in alone) / sum(f.seconds for f in alone)
    ratio = load.rate / alone_rate
    latencies = [latency for figures in alone for latency in figures.latencies]
    both = Figures(latencies=latencies, cpu_seconds=sum(f.cpu_seconds for f in alone))
    print(f"{'':<22}{'requests':>9}{'per second':>12}{'p50 s':>8}{'p95 s':>8}{'CPU ms each':>13}")
    for name, figures, rate in (
        ("one after another", both, alone_rate),
        (f"{args.clients} clients at once", load, load.rate),
    ):
        times = "".join(f"{figures.percentile(percent):>8.2f}" for percent in (50, 95))
        count = len(figures.latencies)
        print(f"{name:<22}{count:>9}{rate:>12.2f}{times}{cpu_ms(figures):>13.0f}")
    quarter = len(resident) // 4
    quarters = [resident[start : start + quarter] for start in range(0, 4 * quarter, quarter)]
    memory = [round(statistics.median(values)) for values in quarters]
    print(f"ratio {ratio:.1f}; {rows:.1f} rows per batch on average")
    print(
        f"lost {len(load.errors)}, mixed up {len(mixed_up)}, worded differently "
        f"{len(different) - len(mixed_up)}; memory in each quarter of the load, in MiB: {memory}"
    )
    for problem in [*load.errors, *alone[1].errors][:5]:
        say(problem)
    return {
        "clients": args.clients,
        "streamed": args.stream,
        "ratio": round(ratio, 2),
        "alone_per_second": round(alone_rate, 2),
        "load_per_second": round(load.rate, 2),
        "alone_p95_seconds": round(both.percentile(95), 3),
        "load_p50_seconds": round(load.percentile(50), 3),
        "load_p95_seconds": round(load.percentile(95), 3),
        "alone_cpu_ms": round(cpu_ms(both), 1),
        "load_cpu_ms": round(cpu_ms(load), 1),
        "requests": len(load.replies),
        "lost": len(load.errors),
        "mixed_up": len(mixed_up),
        "different": len(different) - len(mixed_up),
        "rows_per_batch": round(rows, 1),
        "memory_mib": memory,
    }


async def stop_under_load(
    server: ServedAgent, questions: Sequence[str], clients: int
) -> dict[str, int | float]:
    """SIGTERM while all clients ask: what was accepted is answered whole, the rest is refused."""
    errors: list[str] = []
    answered_at: list[float] = []
    limits = httpx.Limits(max_connections=clients)
    transport = httpx.AsyncHTTPTransport(limits=limits)
    async with httpx.AsyncClient(
        base_url=server.url, timeout=TIMEOUT, transport=transport, trust_env=False
    ) as http:

        async def ask_until_refused(number: int) -> None:
            figures = Figures()
            while not figures.errors:
                await ask(http, questions[number % len(questions)], True, figures)
                answered_at.extend([time.perf_counter()] * (not figures.errors))
            errors.extend(figures.errors)

        asking = [asyncio.create_task(ask_until_refused(number)) for number in range(clients)]
        await asyncio.sleep(STOP_AFTER)
        stopped_at = time.perf_counter()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*asking)
        exit_code = await asyncio.to_thread(server.process.wait, TIMEOUT)
    seconds = time.perf_counter() - stopped_at
    cut_off = [error for error in errors if not error.startswith(REFUSALS)]
    for error in cut_off[:5]:
        say(error)
    found = {
        "answered_after": sum(moment > stopped_at for moment in answered_at),
        "refused": len(errors) - len(cut_off),
        "cut_off": len(cut_off),
        "seconds": round(seconds, 1),
        "exit_code": exit_code,
    }
    print(
        f"SIGTERM under load: {found['answered_after']} answered after it, {found['refused']} "
        f"refused, {found['cut_off']} cut off; ended after {seconds:.1f} s with code {exit_code}"
    )
    return found


async def ask_in_turn(
    http: httpx.AsyncClient, questions: Sequence[str], stream: bool, process: int
) -> Figures:
    figures = Figures()
    with measuring(figures, process):
        for question in questions:
            await ask(http, question, stream, figures)
    return figures


async def ask_at_once(
    http: httpx.AsyncClient, questions: Sequence[str], args: argparse.Namespace, process: int
) -> Figures:
    figures, numbers = Figures(), iter(range(MOST_REQUESTS))
    end = time.perf_counter() + args.seconds

    async def keep_asking() -> None:
        for number in numbers:
            await ask(http, questions[number % len(questions)], args.stream, figures)
            if time.perf_counter() > end:
                return

    with measuring(figures, process):
        await asyncio.gather(*(keep_asking() for _ in range(args.clients)))
    return figures


@contextmanager
def measuring(figures: Figures, process: int) -> Iterator[None]:
    """Add the time that the block takes, and that of a process on the processor."""

    def cpu_seconds() -> float:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    started, cpu = time.perf_counter(), cpu_seconds()
    yield
    figures.seconds = time.perf_counter() - started
    figures.cpu_seconds = cpu_seconds() - cpu


async def ask(http: httpx.AsyncClient, question: str, stream: bool, figures: Figures) -> None:
    """Ask a question; what comes back must be about it, and whole."""
    messages = [{"role": "user", "content": question}]
    body = {"model": "builtin:nano", "messages": messages, "stream": stream}
    started = time.perf_counter()
    try:
        reply = await http.post("/v1/chat/completions", json=body)
        if reply.status_code != 200:
            raise ValueError(f"status {reply.status_code}: {reply.text[:200]}")
        content, details = read_stream(reply.text) if stream else read_whole(reply.json())
        if details["question"] != question or (details["answer"] or "") != content:
            raise ValueError(f"asked {question!r}, and got {content!r} for {details['question']!r}")
    except (httpx.HTTPError, ValueError, LookupError) as error:
        figures.errors.append(f"{type(error).__name__}: {error}")
        return
    figures.latencies.append(time.perf_counter() - started)
    plans = [[node["query"] for node in plan["nodes"]] for plan in details["plans"]]
    figures.replies.append((question, [content, plans]))


def read_whole(reply: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return reply["choices"][0]["message"]["content"] or "", reply["rsearch"]


def read_stream(text: str) -> tuple[str, dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if lines.pop() != "[DONE]":
        raise ValueError("the stream has no end")
    chunks = [json.loads(line) for line in lines]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    events = [chunk["rsearch"] for chunk in chunks if "rsearch" in chunk]
    (finished,) = [event for event in events if event["type"] == "finished"]
    return "".join(delta.get("content") or "" for delta in deltas), finished


async def watch_memory(process: int, seconds: float) -> list[int]:
    """Return the resident memory of a process during the load, in MiB, a value a second."""
    found = []
    for _ in range(max(4, int(seconds))):
        await asyncio.sleep(1.0)
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        found.append(pages * os.sysconf("SC_PAGE_SIZE") >> 20)
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
