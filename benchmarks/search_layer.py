"""The search layer against a slow service, and its warm cache against bare diskcache and JSON.

Run `python benchmarks/search_layer.py` in a checkout where rsearch is installed; it takes a bit
over a minute. 64 plans of 4 nodes in 2 waves search a local server that speaks Exa's protocol and
answers after 200 ms +- 50 ms. Both sides use the real exa-py client and send the same requests,
after one that does not count. The lower bound is requests / concurrency x latency, or the time of
two waves if that is longer. Then the same plans are answered from the warm cache, by one process
and by two, and its entries are read with diskcache and parsed, and nothing else, three times in
turn; the median ratio counts, because it depends less on other load than the rates do. The last
line on stdout is one JSON object, which `--output` also writes to a file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.search.exa import CATEGORIES
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.expansion import expand
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import open_services
from rsearch_cli.types import NodeResult, Passage, PlanNode, SearchPlan

SERVER = Path(__file__).resolve().parents[1] / "tests" / "servers" / "exa.py"
CONCURRENCY = 32
LATENCY = 0.2
JITTER = 0.05
WAVES = 2
TRAJECTORIES = 64
NODES = 4
LOOKUP_SECONDS = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--look-up", type=Path, metavar="CACHE", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="file for the result")
    args = parser.parse_args()
    if args.look_up is not None:
        take_part(args.look_up)
        return
    with tempfile.TemporaryDirectory() as folder, running_server() as server:
        cache = Path(folder) / "cache"
        requests = TRAJECTORIES * NODES
        bound = max(requests / CONCURRENCY * LATENCY, WAVES * LATENCY)
        say(f"{TRAJECTORIES} plans of {NODES} nodes in {WAVES} waves, {LATENCY * 1000:.0f} ms each")
        baseline = time_baseline()
        say(f"one after another       {baseline:8.2f} s")
        ours = time_executor(cache)
        check_requests(server, requests + 1)
        say(f"ours, {CONCURRENCY} at once        {ours:8.2f} s")
        say(f"lower bound             {bound:8.2f} s")
        rounds = [(look_up(cache), read_bare(cache)) for _ in range(3)]
        warm, bare = sorted(rounds, key=lambda pair: pair[1] / pair[0])[1]
        say(f"warm cache              {warm:8.0f} lookups/s")
        say(f"bare diskcache and JSON {bare:8.0f} lookups/s")
        two = look_up_in_processes(cache, 2)
        say(f"warm cache, 2 processes {two:8.0f} lookups/s")
        check_requests(server, requests + 1)
    result = {
        "speedup": round(baseline / ours, 2),
        "bound_ratio": round(ours / bound, 3),
        "warm_lookups_per_s": round(warm),
        "bare_lookups_per_s": round(bare),
        "bare_ratio": round(bare / warm, 2),
        "two_process_lookups_per_s": round(two),
        "baseline_seconds": round(baseline, 2),
        "seconds": round(ours, 3),
        "bound_seconds": round(bound, 3),
        "requests": requests,
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d"),
    }
    say(json.dumps(result))
    if args.output is not None:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


WARM_UP = PlanNode("A", "anything at all", "General")
"""Sent before the clock starts: neither side shall pay for imports and certificates."""


def make_plans() -> list[SearchPlan]:
    """Plans of two roots with a child each; no two nodes ask the same."""
    plans = []
    for i in range(TRAJECTORIES):
        nodes = (
            PlanNode("A", f"founder of city {i}", "General"),
            PlanNode("B", f"latest report about city {i}", "News"),
            PlanNode("C", f"birthplace of founder {i}", "General"),
            PlanNode("D", f"study of report {i}", "Academy"),
        )
        plans.append(SearchPlan(nodes, (("A", "C"), ("B", "D"))))
    return plans


def load() -> Recipe:
    """Exa for every source; no rate limit, as the benchmark is about latency."""
    names = ("General", "News", "Academy")
    settings = [f"search.sources.{name}.type=exa" for name in names]
    settings += [f"search.service.concurrency={CONCURRENCY}"]
    settings += ["search.service.requests_per_second=10000"]
    return load_recipe("quickstart", settings).recipe


def time_baseline() -> float:
    """Seconds that the plans take with exa-py's own client, node by node, as in a plain loop."""
    import exa_py

    search = load().search
    client = exa_py.Exa(os.environ["EXA_API_KEY"], os.environ["EXA_BASE_URL"])

    def ask(query: str, source: str) -> list[Any]:
        return client.search(
            query,
            num_results=search.top_k,
            category=CATEGORIES.get(source),
            contents={"text": {"max_characters": 1000}},
        ).results

    ask(WARM_UP.query, WARM_UP.source)
    started = time.perf_counter()
    for plan in make_plans():
        results: dict[str, NodeResult] = {}
        for wave in plan.waves():
            for node in wave:
                parents = [results[label] for label in plan.parents(node.label)]
                words = expand(
                    node.query, parents, search.expand_dependents, search.expand_from_top
                )
                found = ask(" ".join([node.query, *words]), node.source)
                passages = tuple(Passage(r.url, r.title, r.text) for r in found)
                results[node.label] = NodeResult(node, words, passages)
    return time.perf_counter() - started


def time_executor(cache: Path) -> float:
    """Seconds that the same plans take through the layer, from an empty cache."""
    recipe = load()
    with (
        open_services(recipe, cache.parent / "run", cache) as services,
        PlanExecutor(open_sources(recipe.search, list), recipe.search, services) as executor,
    ):
        executor.execute([SearchPlan((WARM_UP,))])
        started = time.perf_counter()
        results = executor.execute(make_plans())
        seconds = time.perf_counter() - started
    assert all(r.passages and not r.cached for plan in results for r in plan)
    return seconds


def look_up(cache: Path) -> float:
    """Lookups a second: the plans over and over, every node answered from the cache."""
    recipe, plans = load(), make_plans()
    with (
        open_services(recipe, None, cache) as services,
        PlanExecutor(open_sources(recipe.search, list), recipe.search, services) as executor,
    ):
        lookups, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < LOOKUP_SECONDS:
            results = executor.execute(plans)
            assert all(r.cached for plan in results for r in plan)
            lookups += sum(len(plan) for plan in results)
    return lookups / seconds


def read_bare(cache: Path) -> float:
    """Lookups a second with nothing but diskcache and a JSON parser."""
    import diskcache

    with diskcache.Cache(str(cache)) as bare:
        keys = list(bare.iterkeys())
        lookups, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < LOOKUP_SECONDS:
            for key in keys:
                json.loads(bare[key])
            lookups += len(keys)
    return lookups / seconds


def look_up_in_processes(cache: Path, count: int) -> float:
    """Lookups a second of several processes together, over the same time."""
    command = [sys.executable, __file__, "--look-up", str(cache)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(count)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in processes)


def take_part(cache: Path) -> None:
    """One of several processes: load all it needs, wait for the word, look up, tell the rate."""
    open_sources(load().search, list)
    print("ready", flush=True)
    sys.stdin.readline()
    print(look_up(cache))


@contextmanager
def running_server() -> Iterator[str]:
    """A server in a process of its own, and the environment that leads to it."""
    command = [sys.executable, str(SERVER)]
    command += ["--latency-ms", f"{LATENCY * 1000:g}", "--jitter-ms", f"{JITTER * 1000:g}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        told = json.loads(process.stdout.readline())
        os.environ |= {"EXA_API_KEY": told["api_key"], "EXA_BASE_URL": told["url"]}
        yield told["url"]
        process.communicate()


def check_requests(server: str, requests: int) -> None:
    """Both sides must have sent the same requests, each once, and the cache none."""
    with urllib.request.urlopen(f"{server}/counts") as response:
        counts = json.load(response)
    expected = {"requests": 2 * requests, "distinct": requests, "repeated": requests}
    seen = {name: counts[name] for name in expected}
    if seen != expected or counts["most_at_once"] > CONCURRENCY:
        raise SystemExit(f"the two sides did not do the same: {counts}, expected {expected}")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
