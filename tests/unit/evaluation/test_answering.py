"""The limit on failures in an evaluation, and verdicts."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import FailureShareExceeded
from rsearch_cli.evaluation.answering import check_failures, judge_answers
from rsearch_cli.evaluation.failed_share import Failures, check_failed_share
from rsearch_cli.types import Question


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"failure": "no reply"}, "2 of 4 answers of the evaluation failed, .* no reply; retry"),
        (
            {"failed_searches": 1, "search_failure": "late"},
            "2 of 4 searches of the evaluation failed, a share of 0.5; .* is 0.2; .* late",
        ),
        ({"judged": True}, "2 of 2 verdicts of the evaluation failed, .* error: busy; retry"),
    ],
)
def test_too_many_failures_stop_an_evaluation(result, changes, message):
    rows = [result("a"), result("b"), result("c", **changes), result("d", **changes)]
    with pytest.raises(FailureShareExceeded, match=message):
        check_failures(rows, 0.2, "busy", "retry")
    check_failures(rows, 1.0, "busy")


def test_no_failure_is_never_too_many(result):
    check_failures([result("a", searches=0)], 0.0, None)


@pytest.mark.parametrize(("failed", "total"), [(1, 5), (29, 100), (0, 0)])
def test_exactly_the_permitted_share_passes(failed, total):
    limit = failed / max(1, total)
    check_failed_share([Failures("searches", failed, total, "late")], limit, "the step")
    with pytest.raises(FailureShareExceeded, match=f"{failed + 1} of {total + 1} searches of the"):
        check_failed_share([Failures("searches", failed + 1, total + 1, None)], limit, "the step")


class Judge:
    """Gives half a point for every answer, and no verdict on the second."""

    def score_batch(self, pairs):
        self.pairs = pairs
        return [None if position == 1 else 0.5 for position in range(len(pairs))]


def test_only_answered_questions_are_judged(result):
    questions = [Question(id, "?", ("x",)) for id in "abc"]
    rows = [result("a"), result("b", failure="no reply"), result("c")]
    judge = Judge()
    first, failed, last = judge_answers(rows, questions, judge)
    assert [question.id for question, _ in judge.pairs] == ["a", "c"]
    assert (first.judge, first.judged, last.judge, last.unscored) == (0.5, True, None, True)
    assert failed == rows[1]


def test_without_a_reference_no_verdict_is_asked_for(result):
    judge = Judge()
    (row,) = judge_answers([result("a", references=())], [Question("a", "?", ())], judge)
    assert (judge.pairs, row.judged) == ([], False)
