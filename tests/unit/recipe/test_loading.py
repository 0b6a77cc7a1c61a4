from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsearch_cli.errors import RecipeError, RecipeKeyError, RecipeNotFound, RecipeValueError
from rsearch_cli.recipe.loading import (
    dump_recipe,
    list_recipes,
    load_recipe,
    override_recipe,
    peek,
)
from rsearch_cli.recipe.schema import Recipe, SourceConfig

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a recipe into the working folder; purpose and hardware go on its last line."""
    monkeypatch.chdir(tmp_path)

    def write_recipe(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\npurpose: p\nhardware: h\n", encoding="utf-8")

    return write_recipe


def steps_with(write: Write, levels: int) -> int:
    """max_steps where the lowest `levels` of the five levels above the default give it."""
    base = "train: {max_steps: 11}" if levels >= 1 else ""
    own = "train: {max_steps: 12}" if levels >= 2 else ""
    write("base.yaml", base)
    write("own.yaml", f"extends: base.yaml\n{own}")
    overrides = ["train.max_steps=13"] if levels >= 3 else []
    flags = {"train.max_steps": 14 if levels >= 4 else None}
    return load_recipe("own.yaml", overrides, flags).recipe.train.max_steps


def test_a_flag_beats_set_beats_the_recipe_beats_its_base_beats_the_default(write: Write) -> None:
    default = Recipe.model_fields["train"].get_default(call_default_factory=True).max_steps
    assert [steps_with(write, levels) for levels in range(5)] == [default, 11, 12, 13, 14]


def test_the_last_set_of_a_key_wins(write: Write) -> None:
    write("a.yaml", "")
    assert load_recipe("a.yaml", ["seed=1", "seed=2"]).recipe.seed == 2


def test_extends_merges_mappings_and_replaces_lists(write: Write) -> None:
    write("base.yaml", "policy: {model: m, lora: {r: 8, target_modules: [q_proj, k_proj]}}")
    write("own.yaml", "extends: base.yaml\npolicy: {lora: {alpha: 4, target_modules: [v_proj]}}")
    policy = load_recipe("own.yaml").recipe.policy
    assert (policy.model, policy.lora.r, policy.lora.alpha) == ("m", 8, 4)
    assert policy.lora.target_modules == ["v_proj"]


def test_extends_goes_over_several_recipes_and_folders(write: Write) -> None:
    write("deep/a.yaml", "seed: 1\nrollout: {max_turns: 2}")
    write("deep/b.yaml", "extends: a.yaml\nseed: 2\nrollout: {top_p: 0.5}")
    write("c.yaml", "extends: deep/b.yaml\nseed: 3")
    recipe = load_recipe("c.yaml").recipe
    assert (recipe.seed, recipe.rollout.max_turns, recipe.rollout.top_p) == (3, 2, 0.5)


def test_extends_takes_the_name_of_a_shipped_recipe(write: Write) -> None:
    write("own.yaml", "extends: quickstart")
    recipe = load_recipe("own.yaml").recipe
    assert (recipe.purpose, recipe.questions.source) == ("p", "world")


def test_a_circle_is_refused_and_shown(write: Write) -> None:
    write("a.yaml", "extends: b.yaml")
    write("b.yaml", "extends: c.yaml")
    write("c.yaml", "extends: ./a.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe("a.yaml")
    assert str(caught.value) == (
        "a.yaml: recipes extend each other in a circle: a.yaml -> b.yaml -> c.yaml -> a.yaml"
    )
    assert caught.value.exit_code == 10


def test_a_base_that_is_missing_names_who_asked(write: Write) -> None:
    write("a.yaml", "seed: 1\nextends: quickstrat")
    with pytest.raises(RecipeNotFound) as caught:
        load_recipe("a.yaml")
    assert str(caught.value) == (
        "a.yaml:2: extends: no recipe is called 'quickstrat'; did you mean quickstart? "
        "List them with: rsearch recipes"
    )


def test_extends_must_be_text(write: Write) -> None:
    write("a.yaml", "extends: [x, y]")
    with pytest.raises(RecipeValueError) as caught:
        load_recipe("a.yaml")
    assert str(caught.value) == (
        'a.yaml:1: extends must be a recipe\'s name or path, got ["x", "y"]'
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zzz", "no recipe is called 'zzz'. List them with: rsearch recipes"),
        (
            "hotpot-ofline",
            "no recipe is called 'hotpot-ofline'; did you mean hotpot-offline? "
            "List them with: rsearch recipes",
        ),
        ("zzz.yaml", "no recipe file at zzz.yaml. List them with: rsearch recipes"),
        ("no/zzz", "no recipe file at no/zzz. List them with: rsearch recipes"),
    ],
)
def test_an_unknown_recipe_gets_the_nearest_name_and_the_list(name: str, message: str) -> None:
    with pytest.raises(RecipeNotFound) as caught:
        load_recipe(name)
    assert str(caught.value) == message
    assert caught.value.exit_code == 11


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.max_stepz=1", "unknown key train.max_stepz; did you mean train.max_steps?"),
        ("lora_r=8", "unknown key lora_r; did you mean policy.lora.r?"),
        ("learning_rate=1e-3", "unknown key learning_rate; did you mean train.learning_rate?"),
        ("train.lr=1e-3", "unknown key train.lr; did you mean train.learning_rate?"),
        ("train.lora.r=8", "unknown key train.lora; did you mean policy.lora?"),
        ("polcy.model=x", "unknown key polcy; did you mean policy?"),
        ("model_name=x", "unknown key model_name; did you mean policy.model?"),
        ("questions.world.sed=1", "unknown key questions.world.sed; did you mean "),
        (
            "search.sources.News.corpse=x",
            "unknown key search.sources.News.corpse; did you mean search.sources.News.corpus?",
        ),
        (
            "reward.weights.zzz=1",
            "unknown key reward.weights.zzz; known here: answer, plan, format",
        ),
    ],
)
def test_an_unknown_key_gets_the_nearest_of_all_sections(override: str, sentence: str) -> None:
    with pytest.raises(RecipeKeyError) as caught:
        load_recipe("quickstart", [override])
    assert str(caught.value).startswith(f"--set: {sentence}")
    assert caught.value.exit_code == 12


def test_a_sibling_wins_a_tie() -> None:
    # `seed` stands at the top, too.
    with pytest.raises(RecipeKeyError, match=r"did you mean questions\.world\.seed\?"):
        load_recipe("quickstart", ["questions.world.sed=1"])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.max_steps=0", "train.max_steps must be at least 1, got 0"),
        ("train.max_steps=two", 'train.max_steps must be a whole number, got "two"'),
        ("train.max_steps=true", "train.max_steps must be a whole number, got true"),
        ("train.max_steps=", "train.max_steps must be a whole number, got null"),
        ("train.learning_rate=0", "train.learning_rate must be greater than 0.0, got 0"),
        ("train.learning_rate=[]", "train.learning_rate must be a number, got []"),
        ("train.epsilon=1", "train.epsilon must be less than 1.0, got 1"),
        ("policy.lora.dropout=0.95", "policy.lora.dropout must be at most 0.9, got 0.95"),
        ("policy.model=5", "policy.model must be text (put it in quotes), got 5"),
        ("policy.lora=5", "policy.lora must be a mapping of keys, got 5"),
        ("protocol.sources=5", "protocol.sources must be a mapping of names, got 5"),
        (
            "reward.judge.skip_exact_match=1",
            "reward.judge.skip_exact_match must be true or false, got 1",
        ),
        ("policy.lora.target_modules=x", 'policy.lora.target_modules must be a list, got "x"'),
        (
            "policy.lora.target_modules=[]",
            "policy.lora.target_modules must hold at least 1, got []",
        ),
        (
            "policy.lora.target_modules=[a, 2]",
            "policy.lora.target_modules.1 must be text (put it in quotes), got 2",
        ),
        (
            "questions.max_samples=x",
            'questions.max_samples must be a whole number or null, got "x"',
        ),
        ("reward.answer=bleu", 'reward.answer must be "f1", "em" or "judge", got "bleu"'),
        (
            "reward.weights.answer=0.9",
            "reward.weights: answer, plan and format must sum to 1, they sum to 1.4",
        ),
        (
            "train.num_generations=7",
            "train: batch_size x gradient_accumulation_steps = 64 must be a multiple of "
            "num_generations = 7, so that no group is split",
        ),
        (
            "search.sources.Web.corpus=x",
            "protocol.sources names ['Academy', 'General', 'News'] and search.sources "
            "['Academy', 'General', 'News', 'Web']; both must name the same sources: "
            "protocol.sources describes each to the model",
        ),
    ],
)
def test_a_value_that_is_not_allowed_is_told_in_plain_words(override: str, sentence: str) -> None:
    with pytest.raises(RecipeValueError) as caught:
        load_recipe("quickstart", [override])
    assert str(caught.value) == f"--set: {sentence}"
    assert caught.value.exit_code == 13


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("train.max_steps", 0, "--max-steps: train.max_steps must be at least 1, got 0"),
        ("policy.model", 5, "--model: policy.model must be text (put it in quotes), got 5"),
        (
            "questions.path",
            5,
            "--data-path: questions.path must be text (put it in quotes) or null",
        ),
        ("policy.endpoint.url", "localhost:8000", "--endpoint: policy.endpoint.url: it must be"),
    ],
)
def test_a_flag_is_called_by_its_name(key: str, value: object, line: str) -> None:
    with pytest.raises(RecipeValueError) as caught:
        load_recipe("quickstart", ["train.max_steps=5"], {key: value})
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    "key", ["policy.endpoint.url", "reward.judge.base_url", "rollout.vllm_url", "sft.teacher.url"]
)
@pytest.mark.parametrize(
    ("url", "shown"), [("localhost:8000", "localhost:8000"), ("http://me:secret@[x", "http://[x")]
)
def test_an_address_that_is_none_is_refused_where_it_stands(key: str, url: str, shown: str) -> None:
    with pytest.raises(RecipeValueError) as caught:
        load_recipe("quickstart", ["seed=1", f'{key}="{url}"'])
    assert str(caught.value) == (
        f"--set: {key}: it must be an http URL such as http://localhost:8000/v1, without ? "
        f'and #, got "{shown}"'
    )


def test_an_address_in_a_file_is_refused_with_its_line(write: Write) -> None:
    write("a.yaml", "seed: 1\nreward:\n  judge:\n    base_url: localhost")
    with pytest.raises(RecipeValueError, match=r"^a\.yaml:4: reward\.judge\.base_url: it must be"):
        load_recipe("a.yaml", ["seed=2"])


@pytest.mark.parametrize(
    ("key", "text", "shown"),
    [
        ("policy.endpoint.url", "http://me:hunter2@host/v1", "http://***@host/v1"),
        ("reward.judge.base_url", "https://hunter2@host", "https://***@host"),
        ("rollout.vllm_url", "http://:hunter2@host:8000", "http://***@host:8000"),
        ("search.sources.General.options.url", "http://me:hun@ter2@host", "http://***@host"),
        ("protocol.system_prompt", "Ask http://me:hunter2@host/ first.", "http://***@host/"),
    ],
)
def test_a_login_in_an_address_never_comes_into_a_recipe(key: str, text: str, shown: str) -> None:
    with pytest.raises(RecipeValueError) as caught:
        load_recipe("quickstart", ["seed=1", f'{key}="{text}"'], {"train.max_steps": 5})
    assert str(caught.value) == (
        f"--set: {key} contains a user name or a password, and run folders store recipes in plain "
        "text; remove it and set a key in the environment (OPENAI_API_KEY for an OpenAI-compatible "
        f'server), got "{shown}"'
    )


def test_an_at_sign_alone_is_no_login() -> None:
    prompt = "See https://example.org/@me?a=b@c or mail me@example.org."
    assert load_recipe("quickstart", flags={"protocol.system_prompt": prompt})


def test_the_highest_layer_among_the_involved_keys_is_to_blame(write: Write) -> None:
    write("a.yaml", "train:\n  num_generations: 3\n  batch_size: 1")
    with pytest.raises(RecipeValueError) as caught:
        load_recipe("a.yaml", ["train.learning_rate=1e-4", "seed=1"])
    assert str(caught.value).startswith("a.yaml:3: train: batch_size x ")


def test_all_problems_of_all_layers_come_together(write: Write) -> None:
    write("base.yaml", "seed: -1\nlora_r: 3")
    write("own.yaml", "extends: base.yaml\ntrain:\n  max_steps: 0\n  max_steps: 0\nsearch:")
    with pytest.raises(RecipeError) as caught:
        load_recipe("own.yaml", ["reward.weights.zzz=1", "foo"], {"evaluate.limit": 0})
    first, *others = str(caught.value).split("\n")
    assert first == "recipe own has 8 problems:"
    assert sorted(others) == [
        "  --limit: evaluate.limit must be at least 1 or null, got 0",
        "  --set: 'foo' is not KEY=VALUE, as in train.max_steps=20",
        "  --set: unknown key reward.weights.zzz; known here: answer, plan, format",
        "  base.yaml:1: seed must be at least 0, got -1",
        "  base.yaml:2: unknown key lora_r; did you mean policy.lora.r?",
        "  own.yaml:4: train.max_steps is given twice, first on line 3",
        "  own.yaml:4: train.max_steps must be at least 1, got 0",
        "  own.yaml:5: search must be a mapping of keys, got null",
    ]
    assert type(caught.value) is RecipeError
    assert caught.value.exit_code == 10


def test_a_rule_over_several_keys_is_checked_beside_an_unknown_key() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", ["train.max_stepz=1", "train.num_generations=7"])
    assert "train.max_stepz" in str(caught.value)
    assert "num_generations = 7" in str(caught.value)


def test_what_nobody_says_is_missing_from_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("reward:\n  weights: {answer: 1.0}\n", encoding="utf-8")
    with pytest.raises(RecipeValueError) as caught:
        load_recipe(str(path), ["seed=1"])
    assert str(caught.value).split("\n") == [
        "recipe a has 4 problems:",
        f"  {path}: purpose is required",
        f"  {path}: hardware is required",
        f"  {path}:2: reward.weights.plan is required",
        f"  {path}:2: reward.weights.format is required",
    ]


@pytest.mark.parametrize("override", ["train.max_steps", "=3", "train..beta=1", ".seed=1", ""])
def test_set_wants_a_key_and_a_value(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", [override])
    assert str(caught.value) == (f"--set: '{override}' is not KEY=VALUE, as in train.max_steps=20")


def test_set_takes_yaml() -> None:
    overrides = [
        "train.learning_rate=5e-6",
        "questions.difficulty=[hard]",
        "questions.path=a=b.jsonl",
        "questions.max_samples=null",
        "protocol.system_prompt='7'",
        "policy.lora={r: 4, alpha: 8}",
    ]
    recipe = load_recipe("quickstart", overrides).recipe
    assert recipe.train.learning_rate == 5e-6
    assert recipe.questions.difficulty == ["hard"]
    assert recipe.questions.path == "a=b.jsonl"
    assert recipe.questions.max_samples is None
    assert recipe.protocol.system_prompt == "7"
    assert (recipe.policy.lora.r, recipe.policy.lora.alpha) == (4, 8)


def test_set_that_is_not_yaml_is_named() -> None:
    with pytest.raises(RecipeError, match=r"^--set train\.beta: not valid YAML: "):
        load_recipe("quickstart", ["train.beta={a"])


def test_a_dotted_path_edits_a_default_mapping() -> None:
    sources = load_recipe(
        "quickstart", ["search.sources.News.corpus=x.jsonl"]
    ).recipe.search.sources
    assert {name: source.corpus for name, source in sources.items()} == {
        "General": "questions",
        "News": "x.jsonl",
        "Academy": "questions",
    }


def test_a_mapping_in_a_recipe_replaces_a_default_one(write: Write) -> None:
    write("a.yaml", "protocol: {sources: {Web: all}}\nsearch: {sources: {Web: {}}}")
    recipe = load_recipe("a.yaml").recipe
    assert list(recipe.protocol.sources) == list(recipe.search.sources) == ["Web"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", 'a.yaml: it must be a mapping of keys, got ["a", "b"]'),
        (b"", "a.yaml: it must be a mapping of keys, got null"),
        (b"purpose: \xff\n", "a.yaml: not UTF-8 text: invalid start byte"),
    ],
)
def test_a_file_that_holds_no_recipe(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe("a.yaml")
    assert str(caught.value) == message


def test_keys_that_are_not_text_are_unknown_keys(write: Write) -> None:
    write("a.yaml", "train: {2: 3}")
    with pytest.raises(RecipeKeyError, match=r"^a\.yaml:1: unknown key train\.2; known here: "):
        load_recipe("a.yaml")


@pytest.mark.parametrize("name", [loaded.name for loaded in list_recipes()])
def test_a_dumped_recipe_loads_again_identically(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, ["train.learning_rate=5e-6"]).recipe
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    again = load_recipe(str(path)).recipe
    assert again == recipe
    assert dump_recipe(again) == dump_recipe(recipe)


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50
)
@given(prompt=st.text(), rate=st.floats(1e-12, 1.0))
def test_any_prompt_and_rate_survive_the_round_trip(
    prompt: str, rate: float, tmp_path: Path
) -> None:
    flags = {"protocol.system_prompt": prompt, "train.learning_rate": rate}
    recipe = load_recipe("quickstart", flags=flags).recipe
    path = tmp_path / "recipe.yaml"
    path.write_bytes(dump_recipe(recipe).encode("utf-8"))
    assert load_recipe(str(path)).recipe == recipe


def test_a_key_can_be_looked_up_before_anything_is_checked(write: Write) -> None:
    write("base.yaml", "stage: sft")
    write("own.yaml", "extends: base.yaml\ntrain: {max_steps: -1}")
    assert peek("stage", "own.yaml", [], {}) == "sft"
    assert peek("stage", "own.yaml", ["stage=grpo"], {"stage": None}) == "grpo"
    assert peek("stage", "own.yaml", ["stage=grpo"], {"stage": "sft"}) == "sft"
    assert peek("seed", "own.yaml", [], {}) is None


def test_one_kind_replaces_that_of_every_source(write: Write) -> None:
    write("base.yaml", "search: {sources: {A: {type: exa, options: {type: fast}, cache_days: 2}}}")
    write(
        "own.yaml",
        "extends: base.yaml\nprotocol: {sources: {A: a, B: b}}\n"
        "search: {sources: {B: {corpus: b.jsonl}}}",
    )
    loaded = load_recipe("own.yaml", ["search.sources.B.cache_days=3"], source="wikipedia")
    first, second = loaded.recipe.search.sources.values()
    assert first == SourceConfig(type="wikipedia")
    assert second == SourceConfig(type="wikipedia", corpus="b.jsonl", cache_days=3)
    again = override_recipe(loaded.recipe, source="bm25").recipe.search.sources
    assert list(again.values()) == [SourceConfig(), SourceConfig(corpus="b.jsonl")]


def test_one_kind_may_come_with_its_options() -> None:
    given = "{type: wikipedia, options: {language: de}}"
    sources = load_recipe("quickstart", source=given).recipe.search.sources
    assert list(sources) == ["General", "News", "Academy"]
    assert {str(config.options) for config in sources.values()} == {"{'language': 'de'}"}


@pytest.mark.parametrize("source", ["{type: exa", "{kind: exa}"])
def test_a_mistake_in_the_kind_is_one_of_the_flag(source: str) -> None:
    with pytest.raises(RecipeError, match="--source"):
        load_recipe("quickstart", source=source)
