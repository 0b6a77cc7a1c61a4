"""A fictional universe: seeded, unlimited, and unknown to every model.

Place in the path: a question set (`questions.source: world`) and the corpus that comes with it.
Names are invented, so the answers stand in no model's memory: a policy has to search.

The universe is made of regions, and every fact joins entities of one region. Each split owns whole
regions; so no entity of a held-out question, its reasoning or its answer appears in training, while
one corpus holds the passages of all. On failure: an unknown split raises `DataError`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from rsearch_cli.errors import DataEmpty, DataError, RecipeValueError
from rsearch_cli.questions.names import NameMaker
from rsearch_cli.questions.world_relations import QUESTION_TYPES, RELATIONS, QuestionType
from rsearch_cli.recipe.schema import QuestionsConfig
from rsearch_cli.recipe.schema import WorldConfig as WorldRecipe
from rsearch_cli.types import Passage, PlanNode, Question, SearchPlan

ENTITIES_PER_REGION = {
    "country": 1,
    "city": 5,
    "university": 3,
    "company": 6,
    "work": 6,
    "phenomenon": 5,
    "person": 24,
}
SCHOLARS = 8
YEARS = range(1700, 2000)
COMPARISONS_PER_REGION = 10


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is true in the world: `subject` –`relation`→ `object`."""

    relation: str
    subject: str
    object: str

    @property
    def passage_id(self) -> str:
        """Id of the passage that tells it."""
        return f"{self.relation}/{self.subject}"


@dataclass(slots=True)
class Region:
    """Some entities and all facts between them; no fact leaves the region."""

    facts: dict[tuple[str, str], Fact] = field(default_factory=dict)

    def object(self, relation: str, subject: str) -> str:
        """What `relation` holds for `subject`; KeyError if it is not told."""
        return self.facts[relation, subject].object

    def subjects(self, relation: str) -> list[str]:
        """All entities that `relation` is told of, in the order they were made."""
        return [s for r, s in self.facts if r == relation]


def build_region(names: NameMaker, rng: random.Random) -> Region:
    """Make one region's entities and deal out its facts."""
    entities = {
        kind: [names.name(kind) for _ in range(count)]
        for kind, count in ENTITIES_PER_REGION.items()
    }
    scholars = entities["person"][:SCHOLARS]
    subjects = {"employer": scholars}
    objects = {"discoverer": scholars, "year": [str(year) for year in YEARS]}
    region = Region()
    for key, relation in RELATIONS.items():
        for subject in subjects.get(key, entities[relation.subject]):
            pool = objects.get(key) or entities[relation.object]
            region.facts[key, subject] = Fact(key, subject, rng.choice(pool))
    return region


def gold_plan(question: Question) -> SearchPlan:
    """The plan that finds the answer of a world question, from its chain of relations."""
    chain, subjects = question.metadata["chain"], question.metadata["subjects"]
    first = RELATIONS[chain[0]]
    nodes = [
        PlanNode("ABCDEFGH"[i], first.query.format(s=subject), first.source)
        for i, subject in enumerate(subjects)
    ]
    edges = []
    for key in chain[1:]:
        parent, label = nodes[-1].label, "ABCDEFGH"[len(nodes)]
        nodes.append(PlanNode(label, RELATIONS[key].follow_up, RELATIONS[key].source))
        edges.append((parent, label))
    return SearchPlan(tuple(nodes), tuple(edges))


def gold_evidence(question: Question) -> tuple[str, ...]:
    """Ids of the passages that tell what is asked, one a node of the gold plan, in its order."""
    chain, entities = question.metadata["chain"], question.metadata["entities"]
    facts = [Fact(chain[0], subject, "") for subject in question.metadata["subjects"]]
    facts += [Fact(key, holder, "") for key, holder in zip(chain[1:], entities[1:], strict=False)]
    return tuple(fact.passage_id for fact in facts)


class World:
    """The universe as a question set.

    Args:
        seed: Names, facts and questions follow from it alone.
        regions: Split name to its number of regions, generated in this order; a later split never
            changes an earlier one.
        levels: Levels to ask; None asks all.
    """

    name = "world"

    def __init__(
        self, seed: int, regions: Mapping[str, int], levels: Sequence[str] | None = None
    ) -> None:
        self._seed = seed
        self._levels = levels
        rng = random.Random(seed)
        names = NameMaker(rng)
        self._regions = {
            split: [build_region(names, rng) for _ in range(count)]
            for split, count in regions.items()
        }

    @property
    def description(self) -> str:
        """One line for reports."""
        sizes = ", ".join(f"{len(r)} {split}" for split, r in self._regions.items())
        return f"fictional world, seed {self._seed} (regions: {sizes})"

    def load(self, split: str, limit: int | None = None) -> list[Question]:
        """Questions of a split, types taken in turn, so that any limit keeps them balanced."""
        if split not in self._regions:
            raise DataError(f"world: no split {split!r}; this world has {', '.join(self._regions)}")
        rng = random.Random(f"{self._seed} {split}")
        by_type = []
        for key, kind in QUESTION_TYPES.items():
            if self._levels is None or kind.level in self._levels:
                of_type = [q for r in self._regions[split] for q in _ask(key, kind, r, rng)]
                rng.shuffle(of_type)
                by_type.append(of_type)
        questions = [q for turn in zip(*by_type, strict=False) for q in turn]
        if not questions:
            raise DataEmpty(f"world: no question of level {', '.join(self._levels or ())}")
        return questions[:limit]

    def corpus(self) -> Iterator[Passage]:
        """The passages of all regions, one a fact, each in its relation's source."""
        rng = random.Random(f"{self._seed} corpus")
        for fact in self.facts():
            relation = RELATIONS[fact.relation]
            telling = rng.choice(relation.tellings)
            yield Passage(
                id=fact.passage_id,
                title=fact.subject,
                text=telling.format(s=fact.subject, o=fact.object),
                source=relation.source,
            )

    def facts(self) -> Iterator[Fact]:
        """Everything that is true, region by region."""
        for regions in self._regions.values():
            for region in regions:
                yield from region.facts.values()


def open_world(recipe: QuestionsConfig, seed: int) -> World:
    """The world of a recipe; its own `world.seed` decides, not the seed of the run.

    Raises:
        RecipeValueError: The recipe names a file, which would not be read.
    """
    del seed
    if recipe.path is not None:
        raise RecipeValueError(
            f"questions.source is world, which reads no file, and questions.path is {recipe.path}; "
            "set questions.source=custom to read it, or questions.path=null"
        )
    return World(recipe.world.seed, count_regions(recipe.world), recipe.difficulty)


def count_regions(recipe: WorldRecipe) -> dict[str, int]:
    """Regions of each split, in the order in which they are made.

    The test split comes last, so another `train_regions` makes another test; the validation split
    is the same for any.
    """
    return {
        "validation": recipe.held_out_regions,
        "train": recipe.train_regions,
        "test": recipe.held_out_regions,
    }


def _ask(key: str, kind: QuestionType, region: Region, rng: random.Random) -> Iterator[Question]:
    if kind.comparison:
        yield from _ask_comparisons(key, kind, region, rng)
        return
    for subject in region.subjects(kind.chain[0]):
        entities = [subject]
        for relation in kind.chain:
            entities.append(region.object(relation, entities[-1]))
        text = rng.choice(kind.phrasings).format(s=subject)
        yield _question(key, kind, text, (subject,), entities[-1], entities)


def _ask_comparisons(
    key: str, kind: QuestionType, region: Region, rng: random.Random
) -> Iterator[Question]:
    relation = kind.chain[0]
    pairs = list(combinations(region.subjects(relation), 2))
    rng.shuffle(pairs)
    same = [p for p in pairs if region.object(relation, p[0]) == region.object(relation, p[1])]
    different = [p for p in pairs if p not in same]
    half = COMPARISONS_PER_REGION // 2
    chosen = same[:half] + different[:half] if key == "same-birthplace" else different[: 2 * half]
    for a, b in chosen:
        first, second = region.object(relation, a), region.object(relation, b)
        if key == "same-birthplace":
            answer = "yes" if first == second else "no"
        else:
            answer = a if int(first) < int(second) else b
        text = rng.choice(kind.phrasings).format(a=a, b=b)
        yield _question(key, kind, text, (a, b), answer, [a, b, first, second])


def _question(
    key: str,
    kind: QuestionType,
    text: str,
    subjects: tuple[str, ...],
    answer: str,
    entities: Sequence[str],
) -> Question:
    hops = len(kind.chain)
    return Question(
        id=f"{key}/{'|'.join(subjects)}",
        text=text,
        answers=(answer,),
        type=key,
        level=kind.level,
        supporting_titles=tuple(entities[:hops]) if not kind.comparison else subjects,
        metadata={"chain": kind.chain, "subjects": subjects, "entities": tuple(entities)},
    )
