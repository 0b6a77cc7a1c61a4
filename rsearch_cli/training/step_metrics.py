"""Metrics of a training step: rollouts, rewards, time and spend, as a row of `metrics.jsonl`.

What was not measured is null.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from rsearch_cli.protocol.repetition import repeated_ngrams, repeated_tags
from rsearch_cli.services.runtime import JUDGE, LOCAL, READ, ROBOTS
from rsearch_cli.services.spend import ServiceSpend, Spend
from rsearch_cli.training.resampling import Scored, price_replaced
from rsearch_cli.types import RewardParts, SearchRound, Trajectory

# TRL's name of a metric to ours.
FROM_TRAINER = {
    "kl": "kl",
    "entropy": "entropy",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "groups/zero_advantage",
    "clip_ratio/region_mean": "clip_ratio",
}


@dataclass(slots=True)
class StepMetrics:
    """Collects one optimiser step; `close` returns its row and starts the next.

    Attributes:
        spend: The spend of the run when the step began; see `StepSpend.begin`.
        trajectories: `[B*G]` rollouts of the step so far.
        parts: `[B*G]` their rewards.
        discarded: Rollouts that others have replaced; None if `train.resample_ties` is 0.
        tied: Share in [0, 1] of groups without differences; None takes the trainer's.
        seconds: Wall-clock seconds by part (`generate`, `search`, `reward`).
    """

    spend: Spend = field(default_factory=Spend)
    trajectories: list[Trajectory] = field(default_factory=list)
    parts: list[RewardParts] = field(default_factory=list)
    discarded: list[Scored] | None = None
    tied: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    _started: float = field(default_factory=time.perf_counter)

    def record(
        self,
        trajectories: Sequence[Trajectory],
        parts: Sequence[RewardParts],
    ) -> None:
        """Add rollouts to train on, with their scores."""
        self.trajectories += trajectories
        self.parts += parts

    def discard(self, rows: Sequence[Scored]) -> None:
        """Add rollouts that others have replaced."""
        self.discarded = [*(self.discarded or ()), *rows]

    def add_seconds(self, **seconds: float) -> None:
        """Add wall-clock seconds by part."""
        for part, value in seconds.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + value

    def rows(self, step: int) -> list[dict[str, Any]]:
        """Return the rollouts of the step as rows of `trajectories.jsonl`."""
        return [
            describe_trajectory(step, t, p)
            for t, p in zip(self.trajectories, self.parts, strict=True)
        ]

    def close(self, step: int, logs: Mapping[str, Any], spend: Spend) -> dict[str, Any]:
        """Return the metrics row of the step and start the next one.

        Args:
            step: Finished optimiser steps, including this one.
            logs: TRL's metrics.
            spend: The spend of the run so far.
        """
        now = time.perf_counter()
        spent = {"generate": 0.0, "search": 0.0, "reward": 0.0, **self.seconds}
        spent["update"] = now - self._started - sum(spent.values())
        discarded = self.discarded or []
        sampled = [*self.trajectories, *(row.trajectory for row in discarded)]
        lengths = [sum(t.model_mask) for t in self.trajectories]
        row: dict[str, Any] = {
            "step": step,
            "reward": _mean([p.total for p in self.parts]),
            "reward/answer": _mean([p.answer for p in self.parts]),
            "reward/plan": _mean([p.plan for p in self.parts]),
            "reward/format": _mean([p.format for p in self.parts]),
            **_mean_extra(self.parts),
            **{ours: logs.get(theirs) for theirs, ours in FROM_TRAINER.items()},
            "completion_length": _mean(lengths),
            "masked_tokens": sum(len(t.completion_ids) for t in self.trajectories) - sum(lengths),
            "truncated": _mean([float(t.stop == "length") for t in self.trajectories]),
            "format_valid": _mean([float(p.format == 1.0) for p in self.parts]),
            **describe_repetition(self.trajectories),
            "searches": sum(len(round_.results) for t in sampled for round_ in t.rounds),
            "unscored": sum(p.total is None for p in self.parts),
            **describe_failures(sampled, [*self.parts, *(row.parts for row in discarded)]),
            **describe_discarded(self.discarded, self.trajectories, self.spend, spend),
            **describe_spend(self.spend, spend),
            **{f"seconds/{part}": round(value, 4) for part, value in spent.items()},
            "seconds/step": round(now - self._started, 4),
        }
        if self.tied is not None:
            row["groups/zero_advantage"] = self.tied
        self.trajectories, self.parts, self.seconds = [], [], {}
        self.discarded, self.tied = None, None
        self.spend, self._started = spend, now
        return row

    def begin(self, spend: Spend) -> None:
        """Begin the next step now.

        Args:
            spend: As in the attribute.
        """
        self.spend, self._started = spend, time.perf_counter()


def describe_discarded(
    rows: Sequence[Scored] | None, kept: Sequence[Trajectory], before: Spend, now: Spend
) -> dict[str, float | int | None]:
    """Return what was replaced in a step: rollouts, their cost in USD and their mean reward.

    Args:
        rows: The rollouts; None, where nothing may be replaced, has no figures.
        kept: The rollouts that are trained on.
        before: The spend of the run when the step began.
        now: The spend of the run now.
    """
    if rows is None:
        return {}
    usd = price_replaced([row.trajectory for row in rows], kept, before, now)
    return {
        "discarded/rollouts": len(rows),
        "discarded/usd": round(usd, 6),
        "discarded/reward": _mean([row.parts.total for row in rows]),
    }


def describe_repetition(trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
    """Return the shares of repeated tags and n-grams, each a mean over the rollouts in [0, 1]."""
    return {
        "repeated/tags": _mean([repeated_tags(t.opening, t.segments) for t in trajectories]),
        "repeated/ngrams": _mean([repeated_ngrams(t.opening, t.segments) for t in trajectories]),
    }


def describe_failures(
    trajectories: Sequence[Trajectory], parts: Sequence[RewardParts]
) -> dict[str, float | int]:
    """Return how many searches, verdicts and further parts of a step failed, and their share.

    Every node of a plan is a search; every rollout gets a verdict, although some need no call.
    `parts` counts rollouts in which a part of `reward.extra` failed; it is there if there are any.
    `failed/read` counts pages that could not be read; their searches have not failed.
    """
    searches = [r for t in trajectories for round_ in t.rounds for r in round_.results]
    counts = {
        "search": (sum(r.error is not None for r in searches), len(searches)),
        "judge": (count_unscored(trajectories, parts), len(parts)),
    }
    if any(p.extra for p in parts):
        counts["parts"] = (sum(p.failure is not None for p in parts), len(parts))
    return {
        **{f"failed/{kind}": failed for kind, (failed, _) in counts.items()},
        "failed/read": sum(t.failed_reads for t in trajectories),
        **{f"failed_share/{kind}": failed / max(1, of) for kind, (failed, of) in counts.items()},
    }


def count_unscored(trajectories: Sequence[Trajectory], parts: Sequence[RewardParts]) -> int:
    """Return how many answers got no score, although there is a reference answer."""
    pairs = zip(trajectories, parts, strict=True)
    return sum(p.answer is None and bool(t.question.answers) for t, p in pairs)


def describe_spend(before: Spend, now: Spend) -> dict[str, float | int]:
    """Return the spend of the run in USD, and the step's calls and cache hits.

    `calls` are attempts to reach a service, retries included; `cache_hits` are requests, also to
    local sources, that were answered from the cache.
    """
    total = now.total
    row: dict[str, float | int] = {
        "spend/usd": round(total.usd, 6),
        "spend/saved_usd": round(total.saved_usd, 6),
    }
    for kind, names in _service_names(now).items():
        row[f"calls/{kind}"] = sum(
            now.services[n].calls - _numbers(before, n).calls for n in names if n != LOCAL
        )
        row[f"cache_hits/{kind}"] = sum(
            now.services[n].hits - _numbers(before, n).hits for n in names
        )
    return row


def _service_names(spend: Spend) -> dict[str, list[str]]:
    return {
        "search": [name for name in spend.services if name not in (JUDGE, READ, ROBOTS)],
        "judge": [name for name in spend.services if name == JUDGE],
        "read": [name for name in spend.services if name in (READ, ROBOTS)],
    }


def _numbers(spend: Spend, service: str) -> ServiceSpend:
    return spend.services.get(service, ServiceSpend())


def describe_trajectory(step: int, trajectory: Trajectory, parts: RewardParts) -> dict[str, Any]:
    """Return one rollout as JSON, without its token ids."""
    return {
        "step": step,
        "question_id": trajectory.question.id,
        "question": trajectory.question.text,
        "type": trajectory.question.type,
        "answers": list(trajectory.question.answers),
        "answer": trajectory.answer,
        "reward": asdict(parts),
        "stop": trajectory.stop,
        "prompt_tokens": len(trajectory.prompt_ids),
        "segments": [
            {"author": s.author, "tokens": len(s.token_ids), "text": s.text}
            for s in trajectory.segments
        ],
        "opening": trajectory.opening,
        "rounds": [_describe_round(round_) for round_ in trajectory.rounds],
    }


def _describe_round(round_: SearchRound) -> dict[str, Any]:
    return {
        "problems": list(round_.problems),
        "edges": [list(edge) for edge in round_.plan.edges] if round_.plan else [],
        "results": [
            {
                "label": r.node.label,
                "query": r.node.query,
                "source": r.node.source,
                "expansion": list(r.expansion),
                "passages": [p.id for p in r.passages],
                "cached": r.cached,
                "error": r.error,
                "unread": list(r.unread),
            }
            for r in round_.results
        ],
    }


def _mean_extra(parts: Sequence[RewardParts]) -> dict[str, float | None]:
    names = sorted({name for part in parts for name in part.extra})
    return {f"reward/{name}": _mean([part.extra.get(name) for part in parts]) for name in names}


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None
