"""The fictional world: its facts, its questions, and the separation of its splits."""

from __future__ import annotations

from collections import Counter

import pytest

from rsearch_cli.errors import DataEmpty, DataError
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.questions.world import World, gold_evidence, gold_plan
from rsearch_cli.questions.world_relations import QUESTION_TYPES, RELATIONS
from rsearch_cli.recipe.schema import QuestionsConfig, SearchConfig
from rsearch_cli.recipe.schema import WorldConfig as WorldRecipe
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import open_services

REGIONS = {"validation": 2, "train": 4, "test": 3}


@pytest.fixture(scope="module")
def world() -> World:
    return World(7, REGIONS)


def test_a_seed_makes_one_world_and_another_seed_another(world):
    again, other = World(7, REGIONS), World(8, REGIONS)
    assert again.load("train") == world.load("train")
    assert list(again.corpus()) == list(world.corpus())
    assert other.load("train") != world.load("train")


def test_a_split_depends_on_those_before_it_alone(world):
    larger = World(7, {**REGIONS, "train": 9, "pretrain": 2})
    assert larger.load("validation") == world.load("validation")
    assert World(7, {**REGIONS, "pretrain": 2}).load("test") == world.load("test")
    assert len(larger.load("train")) > len(world.load("train"))


def test_no_entity_is_in_two_splits(world):
    entities = {
        split: {
            entity
            for question in world.load(split)
            for entity in question.metadata["entities"]
            if not entity.isdigit()
        }
        for split in REGIONS
    }
    assert all(len(found) > 50 for found in entities.values())
    assert not entities["test"] & entities["train"]
    assert not entities["validation"] & entities["train"]
    assert not entities["test"] & entities["validation"]
    asked = " ".join(q.text for q in world.load("train"))
    assert not [entity for entity in entities["test"] if entity in asked]


def test_levels_go_from_one_hop_to_three_and_to_comparisons():
    hops = {
        level: {
            "comparison" if kind.comparison else len(kind.chain)
            for kind in QUESTION_TYPES.values()
            if kind.level == level
        }
        for level in ("easy", "medium", "hard")
    }
    assert hops == {"easy": {1}, "medium": {2}, "hard": {3, "comparison"}}


def test_all_three_sources_have_passages(world):
    told = Counter(passage.source for passage in world.corpus())
    assert set(told) == {"General", "News", "Academy"}
    assert min(told.values()) > 50
    assert len({passage.id for passage in world.corpus()}) == sum(told.values())


def test_any_limit_keeps_the_types_balanced(world):
    first = Counter(q.type for q in world.load("train", 2 * len(QUESTION_TYPES)))
    assert set(first.values()) == {2}
    assert set(first) == set(QUESTION_TYPES)


def test_questions_and_ids_are_distinct(world):
    questions = world.load("train")
    assert len({q.id for q in questions}) == len(questions) > 300


def test_yes_and_no_are_both_answers(world):
    answers = Counter(q.answers[0] for q in world.load("train") if q.type == "same-birthplace")
    assert set(answers) == {"yes", "no"}


def test_the_older_company_is_the_one_that_opened_first(world):
    years = {f.subject: int(f.object) for f in world.facts() if f.relation == "year"}
    asked = [q for q in world.load("train") if q.type == "older-company"]
    assert asked
    for question in asked:
        a, b = question.metadata["subjects"]
        assert question.answers == ((a,) if years[a] < years[b] else (b,))


def test_gold_plans_find_every_answer(world, quickstart, tmp_path):
    """What a perfect planner can reach: the rest is up to the policy."""
    search = SearchConfig(top_k=1)
    questions = world.load("train", 200)
    sources = open_sources(search, world.corpus, tmp_path / "index")
    with (
        open_services(quickstart, None, tmp_path / "answers") as services,
        PlanExecutor(sources, search, services) as executor,
    ):
        found = executor.execute([gold_plan(q) for q in questions])
    objects = {f.passage_id: f.object for f in world.facts()}
    for question, results in zip(questions, found, strict=True):
        told = [objects[r.passages[0].id] for r in results]
        if QUESTION_TYPES[question.type].comparison:
            assert told == list(question.metadata["entities"][2:])
        else:
            assert told[-1] == question.answers[0]


def test_a_gold_plan_asks_the_source_that_knows(world):
    for question in world.load("train", 60):
        plan = gold_plan(question)
        chain = question.metadata["chain"]
        sources = [RELATIONS[key].source for key in chain]
        if QUESTION_TYPES[question.type].comparison:
            sources *= 2
        assert [node.source for node in plan.nodes] == sources
        assert len(plan.waves()) == len(chain)


def test_the_evidence_of_a_question_is_in_the_source_of_its_node(world):
    told = {passage.id: passage for passage in world.corpus()}
    for question in world.load("train"):
        evidence = gold_evidence(question)
        nodes = gold_plan(question).nodes
        assert len(evidence) == len(nodes)
        for passage_id, node in zip(evidence, nodes, strict=True):
            assert told[passage_id].source == node.source
        if len(question.metadata["subjects"]) == 1:
            assert question.answers[0] in told[evidence[-1]].text


def test_the_recipe_chooses_the_levels():
    small = WorldRecipe(train_regions=1, held_out_regions=1)
    world = open_question_set(
        QuestionsConfig(source="world", difficulty=["easy"], world=small), seed=0
    )
    assert {q.level for q in world.load("test")} == {"easy"}


def test_an_unknown_split_is_named(world):
    with pytest.raises(DataError, match="no split 'dev'; it has validation, train, test"):
        world.load("dev")


def test_a_level_without_questions_is_an_empty_set():
    with pytest.raises(DataEmpty, match="no question of level expert"):
        World(7, REGIONS, ["expert"]).load("test")
