"""The fictional world: a question set and corpus generated from a seed.

All names are invented, so no model can know the answers without searching. The world consists of
regions, and every fact connects entities of one region. Each split owns whole regions: no entity of
a held-out question, its reasoning or its answer occurs in training, while one corpus covers all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from rsearch_cli.errors import DataEmpty, DataError, RecipeValueError
from rsearch_cli.questions.world_relations import QUESTION_TYPES, RELATIONS, QuestionType
from rsearch_cli.recipe.schema import QuestionsConfig, WorldConfig
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

ONSETS = "b d f g h j k l m n p r s t v z br dr tr kl".split()
VOWELS = "a e i o u".split()
CODAS = ["", "n", "r", "l", "s"]
SYLLABLES = [o + v + c for o in ONSETS for v in VOWELS for c in CODAS]
FIRST_NAMES = 150
WORK_NOUNS = "Garden River Letter Mirror Winter Island Harbour Bridge Lantern Orchard".split()
COMPANY_NOUNS = "Works Motors Foods Press Bank Lines".split()


class NameMaker:
    """Generates the names of one world, each only once."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._used: set[str] = set()
        self._first_names = [self.word() for _ in range(FIRST_NAMES)]

    def word(self) -> str:
        """Return a new capitalised word of two syllables."""
        for _ in range(10_000):
            word = "".join(self._rng.choices(SYLLABLES, k=2)).capitalize()
            if word not in self._used:
                self._used.add(word)
                return word
        raise RuntimeError("the world has run out of invented words; use fewer regions")

    def name(self, kind: str) -> str:
        """Return a new name for an entity of `kind`, such as `person` or `city`."""
        word = self.word()
        match kind:
            case "person":
                return f"{self._rng.choice(self._first_names)} {word}"
            case "country":
                return f"{word}land" if word[-1] in VOWELS else f"{word}ia"
            case "company":
                return f"{word} {self._rng.choice(COMPANY_NOUNS)}"
            case "university":
                return f"{word} University"
            case "work":
                return f"The {word} {self._rng.choice(WORK_NOUNS)}"
            case "phenomenon":
                return f"{word} Effect"
            case _:
                return word


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact of the world: `subject` –`relation`→ `object`."""

    relation: str
    subject: str
    object: str

    @property
    def passage_id(self) -> str:
        """Id of the passage that states the fact."""
        return f"{self.relation}/{self.subject}"


@dataclass(slots=True)
class Region:
    """A group of entities and all facts between them."""

    facts: dict[tuple[str, str], Fact] = field(default_factory=dict)

    def object(self, relation: str, subject: str) -> str:
        """Return the object of a fact; KeyError if there is none."""
        return self.facts[relation, subject].object

    def subjects(self, relation: str) -> list[str]:
        """Return all subjects of a relation, in the order of their creation."""
        return [s for r, s in self.facts if r == relation]


def build_region(names: NameMaker, rng: random.Random) -> Region:
    """Generate the entities and facts of one region."""
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
    """Return the search plan that finds a world question's answer."""
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
    """Return the ids of the passages behind the answer, in the order of the gold plan's nodes."""
    chain, entities = question.metadata["chain"], question.metadata["entities"]
    facts = [Fact(chain[0], subject, "") for subject in question.metadata["subjects"]]
    facts += [Fact(key, holder, "") for key, holder in zip(chain[1:], entities[1:], strict=False)]
    return tuple(fact.passage_id for fact in facts)


class World:
    """The world as a question set.

    Args:
        seed: Determines all names, facts and questions.
        regions: Number of regions by split, generated in this order; a later split never changes
            an earlier one.
        levels: Levels of the questions; None means all.
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
        """One line for reports, with the seed and the number of regions."""
        sizes = ", ".join(f"{len(r)} {split}" for split, r in self._regions.items())
        return f"fictional world, seed {self._seed} (regions: {sizes})"

    def load(self, split: str, limit: int | None = None) -> list[Question]:
        """Return questions of a split, alternating between types so that any limit is balanced."""
        if split not in self._regions:
            raise DataError(f"world: no split {split!r}; it has {', '.join(self._regions)}")
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
        """Yield the passages of all regions: one per fact, in the source of its relation."""
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
        """Yield all facts, region by region."""
        for regions in self._regions.values():
            for region in regions:
                yield from region.facts.values()


def open_world(config: QuestionsConfig, seed: int) -> World:
    """Open the world; it is generated from `world.seed`, not from the seed of the run.

    Raises:
        RecipeValueError: `path` is set, but the world reads no file.
    """
    del seed
    if config.path is not None:
        raise RecipeValueError(
            f"questions.source is world, which reads no file, but questions.path is {config.path}; "
            "set questions.source=custom to read it, or questions.path=null"
        )
    return World(config.world.seed, count_regions(config.world), config.difficulty)


def count_regions(config: WorldConfig) -> dict[str, int]:
    """Return the number of regions by split, in the order of generation.

    The test split comes last and so depends on `train_regions`; the validation split does not.
    """
    return {
        "validation": config.held_out_regions,
        "train": config.train_regions,
        "test": config.held_out_regions,
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
