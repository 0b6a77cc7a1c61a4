"""Citations: which passages come first, and what is claimed of them."""

from __future__ import annotations

import pytest

from rsearch_cli.rollout.citations import cite
from rsearch_cli.types import NodeResult, Passage, PlanNode, SearchRound

NODE, OTHER = PlanNode("A", "x", "General"), PlanNode("B", "y", "General")
RIVER = Passage("r", "Tiber", "It flows through Rome.")
CITY = Passage("c", "New York City", "A city in New York; the mayor is Ada Bell.")
PARTS = Passage("p", "Bell", "Ada founded it.")


def numbered(answer, *passages, chars=200):
    rounds = [SearchRound(None, (), (NodeResult(NODE, (), passages),))]
    return [(c.number, c.passage.id, c.contains_answer) for c in cite(rounds, answer, chars)]


def test_the_words_in_a_row_come_before_the_words_and_those_before_none():
    assert numbered("Ada Bell", RIVER, PARTS, CITY) == [
        (1, "c", True),
        (2, "p", False),
        (3, "r", False),
    ]


@pytest.mark.parametrize("answer", [None, "", "yes", "No.", "?!"])
def test_an_answer_that_no_passage_can_hold_leaves_them_in_order(answer):
    no = Passage("n", "No", "There is no yes.")
    assert numbered(answer, RIVER, no) == [(1, "r", False), (2, "n", False)]


def test_words_are_compared_whole_and_folded():
    accents = Passage("a", "", "In MÜNCHEN it rains.")
    assert numbered("münchen", RIVER, accents)[0] == (1, "a", True)
    assert numbered("Rom", RIVER)[0] == (1, "r", False)


def test_only_what_the_model_was_shown_counts():
    late = Passage("l", "", "A sentence of some length first. Then comes Rome, at last.")
    assert numbered("Rome", late, chars=36) == [(1, "l", False)]
    assert numbered("Rome", late) == [(1, "l", True)]


def test_a_passage_that_two_searches_found_has_one_number_and_both_nodes():
    again = Passage("r", "Tiber", RIVER.text, score=9.0)
    results = (NodeResult(NODE, (), (RIVER,)), NodeResult(OTHER, (), (again,)))
    (citation,) = cite([SearchRound(None, (), results)], "Rome", 200)
    assert (citation.number, citation.nodes) == (1, ("A", "B"))


def test_an_address_is_an_url_only_where_it_is_one():
    web = Passage("https://rome.example/a", "Rome", "x")
    urls = [
        c.url
        for c in cite([SearchRound(None, (), (NodeResult(NODE, (), (web, RIVER)),))], "Rome", 9)
    ]
    assert urls == ["https://rome.example/a", None]
