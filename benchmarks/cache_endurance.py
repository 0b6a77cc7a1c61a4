"""Eight processes on one cache, two of them killed: nothing lost, nothing corrupt, nobody stuck.

Run it as `python benchmarks/cache_endurance.py`, with `--seconds` for a shorter run. The processes
ask a made-up service for the same questions at the same time, through the client, and read back
what others have stored. Two of them get a SIGKILL on the way, wherever they are. Every process
writes down what it has asked and what it has been told is kept; at the end that is held against the
cache. The last line on stdout is one JSON object; the exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

PROCESSES = 8
KILLED = 2
QUESTIONS_A_SECOND = 60
GRACE_SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="length of the run (default 30)"
    )
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "NUMBER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        folder, number = options.worker
        asyncio.run(work(Path(folder), int(number), options.seconds))
        return
    with tempfile.TemporaryDirectory(prefix="rsearch-endurance-") as folder:
        result = run(Path(folder), options.seconds)
    print(json.dumps(result))
    sys.exit(bool(result["problems"]))


def question_key(number: int) -> str:
    from rsearch_cli.services.cache import make_key

    return make_key("made-up", query=f"question {number}")


def answer_to(number: int) -> list[str]:
    """The one right answer: a few kilobytes that can be checked."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return [digest] * (20 + number % 100)


async def work(folder: Path, worker: int, seconds: float) -> None:
    """Ask and read until the time is over; the journal has a line for every event."""
    from rsearch_cli.recipe.services import ServiceConfig
    from rsearch_cli.services.budget import Budget
    from rsearch_cli.services.cache import AnswerCache
    from rsearch_cli.services.client import ServiceClient
    from rsearch_cli.services.outcomes import Reply
    from rsearch_cli.services.retry import RetryPolicy

    journal = os.open(folder / f"journal-{worker}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    rng = random.Random(worker)

    def note(event: str, number: int) -> None:
        os.write(journal, f"{event} {number}\n".encode())

    async def ask(client: ServiceClient, number: int) -> None:
        async def call() -> Reply:
            note("asked", number)
            await asyncio.sleep(rng.uniform(0.0, 0.02))
            return Reply(list(answer_to(number)), 0.001)

        answer = await client.fetch(question_key(number), call, worst_usd=0.001)
        note("kept" if answer.value == answer_to(number) else "wrong", number)

    with AnswerCache(folder / "answers") as cache, Budget(folder / "run") as budget:
        retry = RetryPolicy("made-up", ServiceConfig(requests_per_second=10000.0))
        client = ServiceClient("made-up", cache, budget, retry)
        print("ready", flush=True)
        started = float(sys.stdin.readline())
        while (passed := time.time() - started) < seconds:
            newest = int(passed * QUESTIONS_A_SECOND)
            new = [newest + rng.randrange(4) for _ in range(4)]
            old = [rng.randrange(newest + 1) for _ in range(8)]
            await asyncio.gather(*(ask(client, number) for number in new + old))
        print(json.dumps({"spent": budget.snapshot().total.usd}), flush=True)


def run(folder: Path, seconds: float) -> dict[str, object]:
    workers = [start(folder, number, seconds) for number in range(PROCESSES)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    started = time.time()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(f"{started}\n")
        worker.stdin.flush()
    for number in range(KILLED):
        time.sleep(max(0.0, started + seconds * (number + 1) / (KILLED + 2) - time.time()))
        workers[number].kill()
    deadline = started + seconds + GRACE_SECONDS
    problems = []
    for number, worker in enumerate(workers):
        try:
            _, said = worker.communicate(timeout=max(0.1, deadline - time.time()))
        except subprocess.TimeoutExpired:
            worker.kill()
            problems.append(f"process {number} is stuck")
            continue
        if said:
            problems.append(f"process {number} said: {said[-2000:]}")
        if (worker.returncode == 0) == (number < KILLED):
            problems.append(f"process {number} ended with {worker.returncode}")
    return judge(folder, problems, time.time() - started)


def start(folder: Path, number: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--seconds", str(seconds), "--worker", folder, str(number)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def judge(folder: Path, problems: list[str], seconds: float) -> dict[str, object]:
    """Hold the journals against the cache."""
    from rsearch_cli.services.budget import Budget
    from rsearch_cli.services.cache import AnswerCache

    journals = [read_journal(folder / f"journal-{number}") for number in range(PROCESSES)]
    asked = Counter(number for events in journals for event, number in events if event == "asked")
    kept = {number for events in journals for event, number in events if event == "kept"}
    wrong = [number for events in journals for event, number in events if event == "wrong"]
    cut_off = Counter(number for events in journals[:KILLED] for number in unfinished(events))
    repeated = [n for n, times in asked.items() if times > 1 + cut_off[n]]
    with AnswerCache(folder / "answers", "offline") as cache:
        lost = [number for number in kept if cache.get(question_key(number)) != answer_to(number)]
        entries = sum(1 for _ in cache.export_rows())
    with sqlite3.connect(folder / "answers" / "cache.db") as connection:
        ((integrity,),) = connection.execute("PRAGMA integrity_check").fetchall()
    spent = Budget(folder / "run").snapshot().total
    checks = {
        f"{len(wrong)} wrong answers": wrong,
        f"{len(lost)} commits lost": lost,
        f"{len(repeated)} questions asked again: {repeated[:5]}": repeated,
        f"the database is {integrity}": integrity != "ok",
        "the cache was set aside": list(folder.glob("*aside*")),
        f"{spent.calls} calls paid, {asked.total()} made": spent.calls < asked.total(),
    }
    problems += [problem for problem, found in checks.items() if found]
    for problem in problems:
        print(problem)
    print(f"{PROCESSES} processes, {KILLED} killed, {seconds:.1f} s, {entries} entries")
    return {
        "problems": problems,
        "processes": PROCESSES,
        "killed": KILLED,
        "seconds": round(seconds, 1),
        "entries": entries,
        "calls": asked.total(),
        "fetches": sum(1 for journal in journals for event, _ in journal if event == "kept"),
        "asked_again_for_the_dead": asked.total() - len(asked),
    }


def read_journal(path: Path) -> list[tuple[str, int]]:
    lines = path.read_text(encoding="ascii").split("\n")[:-1]
    return [(event, int(number)) for event, number in (line.split() for line in lines)]


def unfinished(events: list[tuple[str, int]]) -> set[int]:
    """Questions that a process had asked and not yet kept when it was killed."""
    kept = {number for event, number in events if event == "kept"}
    return {number for event, number in events if event == "asked"} - kept


if __name__ == "__main__":
    main()
