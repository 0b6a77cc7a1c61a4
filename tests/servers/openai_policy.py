"""A scripted agent behind `openai_chat.ChatServer`, in place of a served model.

A reply depends on the messages alone, so any order and number of concurrent requests must give the
same answers. The agent searches for the number of a city and answers with the number in the
results; for every fifth question it searches for the wrong city, and every seventh answer has no
tags. Stop strings are left out of the text, as by OpenAI. As a script it prints one JSON line with
its URL, and serves until its input ends:

    python tests/servers/openai_policy.py --latency-ms 200
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from openai_chat import API_KEY, ChatServer, Said, count_tokens

SETTINGS = (
    "questions.source=custom",
    "search.top_k=1",
    "rollout.max_new_tokens=200",
    "policy.endpoint.service.requests_per_second=10000",
    "policy.endpoint.service.max_backoff_seconds=0",
    "policy.endpoint.service.retries=2",
)
"""On top of the recipe hotpot-offline, with `write_files`."""

_CITY = re.compile(r"number of city (\d+)\?")
_NUMBER = re.compile(r"has the number Nr (\d+)")


def write_files(folder: Path, questions: int) -> tuple[Path, Path]:
    """A question file about cities and a corpus that has their numbers."""
    asked, corpus = folder / "cities.jsonl", folder / "corpus.jsonl"
    rows = [
        {
            "id": f"c{i}",
            "question": f"What is the number of city {i}?",
            "answer": f"Nr {i * 17}",
            "type": "odd" if i % 2 else "even",
        }
        for i in range(questions)
    ]
    passages = [
        {"id": str(i), "title": f"City {i}", "text": f"It has the number Nr {i * 17}."}
        for i in range(questions)
    ]
    for file, lines in ((asked, rows), (corpus, passages)):
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return asked, corpus


def write_as_agent(body: dict[str, Any]) -> Said:
    """The reply to a request: a plan, or, once there is a result, an answer."""
    said = [m["content"] for m in body["messages"]]
    cities = [int(found) for text in said for found in _CITY.findall(text)]
    if not cities:  # it is only tried out
        plan = "<think> I look. </think>\n<search>\nNodes:\nA: born (General)\nEdges:\n</search>"
        read = "<result>" in said[-1]
        return stop_as_openai("<answer> London </answer>" if read else plan, body)
    city = cities[-1]
    # The worked examples of the prompt hold results as well; they name no number of a city.
    numbers = [found for text in said for found in _NUMBER.findall(text)]
    system = body["messages"][0]["content"]
    if numbers or "from memory" in system or "that are given" in system:
        text = write_answer(city, numbers[-1] if numbers else None)
    else:
        asked = city + 1 if city % 5 == 0 else city
        text = (
            f"<think> I look up city {asked}. </think>\n<search>\nNodes:\n"
            f"A: number of city {asked} (General)\nEdges:\n</search>"
        )
    return stop_as_openai(text, body)


def write_answer(city: int, number: str | None) -> str:
    """The number, if one was found."""
    answer = f"Nr {number}" if number else "unknown"
    return f"<answer> {answer} </answer>" if city % 7 else f"It is {answer}."


def stop_as_openai(text: str, body: dict[str, Any]) -> Said:
    """End a text before its first stop string, or at its limit of tokens."""
    ends = [text.index(stop) for stop in body.get("stop", ()) if stop in text]
    text = text[: min(ends)] if ends else text
    most = body.get("max_tokens")
    if most is not None and count_tokens(text) > most:
        return Said(text.encode()[: most * 4].decode(errors="ignore"), finish="length")
    return Said(text)


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(description="A scripted agent behind OpenAI's chat API.")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    latency = parser.parse_args().latency_ms / 1000
    with ChatServer(write_as_agent, latency=latency) as server:
        print(json.dumps({"base_url": server.base_url, "api_key": API_KEY}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
