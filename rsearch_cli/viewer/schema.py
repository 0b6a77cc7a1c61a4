"""The data that the viewer's page reads: an index, and parts with the details of its rows.

The index has one entry a row in each column, and is read at once. A part has the transcripts of up
to `PART_ROWS` consecutive rows, and is read when one of them is opened. What a folder does not
contain is null. In a file, the index is the element `rsearch-index` and part P of source S is
`rsearch-part-S-P`, both as base64 of gzip; served, they are `/data/index.json` and
`/data/part-S-P.json`.
"""

from __future__ import annotations

from typing import Any, TypedDict

SCHEMA = 1

PART_ROWS = 500
"""Most rows of a part."""
PART_BYTES = 4 << 20
"""Bytes of the stored file after which a part ends, so that long transcripts make small parts."""

CELL_CHARS = 1000
"""Most characters of a question or an answer in the index; the details have all of them."""

TRAIN = "train"
"""Phase of the rollouts that a run was trained on."""

CODED = ("phase", "id", "key", "question", "type", "said", "stop")
"""Columns of texts: a row has a position in the list of that name in `dictionaries`.

Rows are of the same question if their `key` is equal: a hash of id, text and reference answers.
"""

PLAIN = (
    *("step", "reward", "answer", "plan", "format", "valid", "em", "f1", "judge", "title_recall"),
    *("searches", "failed", "unscored", "tokens", "inserted", "seconds", "usd"),
    *("group", "advantage", "sample"),
)
"""Columns of numbers.

    step          optimiser step of a rollout of the training, from 1
    reward        total reward; null if unscored
    answer        score of the answer in the reward
    plan, format  1 if all plans are valid, else 0; share of the format's rules that are kept (of a
                  prediction: 1 for all, else 0)
    valid         1 if there is a plan and all plans are valid, else 0
    em, f1, judge, title_recall   scores of a prediction; judge is also the answer's score in a
                  training with a judge
    searches, failed   sub-queries that were executed, and how many of them failed
    unscored      1 if a score was expected and is missing: no verdict, or no answer from a server
    tokens, inserted   tokens that the policy wrote, and that the system inserted
    seconds, usd  time and price of a prediction, where they were measured
    group         number of the group of rollouts of one question at one step, from 0
    advantage     of the rollout within its group (see `Source.advantages`)
    sample        which of several samples of its question a prediction is, from 0
"""


class Rows(TypedDict):
    """The rows of a source, column by column.

    Attributes:
        count: Number of rows.
        columns: Of each of `CODED` and `PLAIN`, `count` values.
        dictionaries: Of each of `CODED`, the texts.
    """

    count: int
    columns: dict[str, list[Any]]
    dictionaries: dict[str, list[str]]


class Curves(TypedDict):
    """What a run measured at every step.

    Attributes:
        step: `[n]` optimiser steps.
        series: By name of a field of `metrics.jsonl`, `[n]` values.
        alarms: Alarms of each step that has any.
    """

    step: list[int]
    series: dict[str, list[float | None]]
    alarms: list[dict[str, Any]]


class Part(TypedDict):
    """A range of rows whose details are stored together."""

    first: int
    count: int


class Source(TypedDict):
    """A run or an evaluation.

    Attributes:
        name: Name of its folder, unique among the sources; paths are not stored.
        kind: `run` or `evaluation`.
        finished: Whether it has a summary.
        generation: Changes when rows were removed or replaced, so that stored parts are outdated.
        settings: The recipe, by dotted key.
        summary: `summary.json` of a run, `results.json` of an evaluation; {} if there is none.
        spend: What was spent, by service: `usd`, `saved_usd`, `calls`, `hits`, `failed`.
        advantages: How `advantage` was computed, as a formula in words.
        highest: The highest reward that a rollout can have, by the recipe.
        curves: Empty for an evaluation.
        validations: The rows of `validation.jsonl`.
        rows: Rollouts of the training and predictions; the phase tells them apart.
        parts: Without gaps, in order.
        warnings: What could not be read, one line each.
    """

    name: str
    kind: str
    finished: bool
    generation: int
    settings: dict[str, Any]
    summary: dict[str, Any]
    spend: dict[str, Any]
    advantages: str | None
    highest: float
    curves: Curves
    validations: list[dict[str, Any]]
    rows: Rows
    parts: list[Part]
    warnings: list[str]


class Side(TypedDict):
    """One side of a comparison."""

    source: int
    phase: str


class Index(TypedDict):
    """Everything but the transcripts.

    Attributes:
        schema: `SCHEMA`.
        title: For the page.
        live: Whether the data is served and may grow.
        sources: In the order given.
        comparisons: `first` and `second` (a `Side` each), the fields of
            `evaluation.comparison.compare` over the questions that both sides have, and the numbers
            of the other questions, `only_first` and `only_second`.
    """

    schema: int
    title: str
    live: bool
    sources: list[Source]
    comparisons: list[dict[str, Any]]


class Segment(TypedDict):
    """A stretch of a transcript; `tokens` is null where a server counted or nobody did.

    Of a rollout that is trained on, what the author `model` wrote is in the loss, and what `system`
    inserted is not.
    """

    author: str
    text: str
    tokens: int | None


class Detail(TypedDict):
    """One row of a part: what the columns do not have.

    Attributes:
        id: Of the question.
        question: Its text.
        answers: Accepted answers.
        segments: The transcript.
        trained: Whether it was trained on: not a prediction, and not a rollout that reached the
            token limit where `train.mask_truncated` excludes those.
        rounds: As `plans` of `rsearch infer --json`: `valid`, `problems`, `nodes`, `edges` and
            `results`; a passage has `id`, `title`, `text` and `score`, null where not stored.
        answer: The answer given, or null.
        stop: `answer`, `eos` or `length`; null for a prediction.
        reward: `total`, `answer`, `plan`, `format` and `extra`; null for a prediction.
        judge: `score` of the judge, null without a verdict; null where no judge was asked.
        failure: Why a server gave no answer, or null.
    """

    id: str
    question: str
    answers: list[str]
    segments: list[Segment]
    trained: bool
    rounds: list[dict[str, Any]]
    answer: str | None
    stop: str | None
    reward: dict[str, Any] | None
    judge: dict[str, Any] | None
    failure: str | None
