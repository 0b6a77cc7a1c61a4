"""What is taken from a recipe that somebody else wrote, and which recipes are the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.errors import RecipeError, RecipeValueError
from rsearch_cli.recipe.flags import schema_fields
from rsearch_cli.recipe.loading import dump_recipe, load_recipe
from rsearch_cli.recipe.trust import (
    describe_left_out,
    is_hub_id,
    is_own,
    is_somebodys,
    remember_own,
    take_harmless,
)

# Every setting that is left to the user; a new one belongs here until somebody thinks about it.
OURS = """
    output_dir policy.adapter policy.endpoint policy.trust_remote_code questions.path
    questions.profile questions.pass_rate questions.order
    search.sources.*.options search.sources.*.usd_per_search search.usd_per_search search.service
    search.read_top search.read_private_addresses search.read_service
    rollout.engine rollout.vllm_url rollout.vllm_folder rollout.vllm_memory_share
    rollout.micro_batch rollout.micro_batch_tokens rollout.reuse_cache
    dialogue.endpoint reward.judge sft.teacher wandb budget cache hub
""".split()
# Taken by their value; see the tests below.
BY_VALUE = """
    policy.model reward.answer dialogue.writer sft.traces
    search.sources.*.type search.sources.*.corpus
    search.sources.*.cache_days
    questions.source questions.difficulty questions.train_split questions.max_samples
    questions.held_out_share questions.held_out_by questions.world
    evaluate.split evaluate.slice_split
""".split()


def nest(dotted: str, value: Any) -> dict[str, Any]:
    tree: Any = value
    for key in reversed(dotted.split(".")):
        tree = {key: tree}
    return tree


def taken(dotted: str, value: Any) -> Any:
    tree: Any = take_harmless(nest(dotted, value))[0]
    for key in dotted.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def test_every_setting_that_is_not_known_to_be_harmless_is_left_out() -> None:
    fields = schema_fields()
    leaves = [k for k in fields if not any(other.startswith(f"{k}.") for other in fields)]
    known = [
        key for key in leaves if not any(f"{key}.".startswith(f"{k}.") for k in (*OURS, *BY_VALUE))
    ]
    for key in leaves:
        dotted = key.replace("*", "General")
        assert (taken(dotted, "/mark") == "/mark") is (key in known), key
    assert len(known) > 60


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("policy.endpoint.url", "http://evil.example/v1"),
        ("policy.endpoint", {"url": "http://evil.example/v1", "model": "x"}),
        ("reward.judge", {"base_url": "http://evil.example/v1"}),
        ("reward.judge.base_url", "http://evil.example/v1"),
        ("rollout.vllm_url", "http://evil.example"),
        ("rollout.vllm_folder", "/etc"),
        ("rollout.engine", "vllm-server"),
        ("questions.path", "~/.ssh/id_rsa"),
        ("questions.source", "custom"),
        ("questions.source", "flashrag:nq"),
        ("reward.answer", "judge"),
        ("sft.traces", "/etc/passwd"),
        ("sft.traces", "teacher"),
        ("sft.teacher.url", "http://evil.example/v1"),
        ("sft.teacher", {"url": "http://evil.example/v1", "model": "x", "samples": 64}),
        ("dialogue.writer", "endpoint"),
        ("dialogue.endpoint.url", "http://evil.example/v1"),
        ("policy.adapter", "/home/me/private"),
        ("policy.trust_remote_code", True),
        ("policy.model", "/data/models/private"),
        ("policy.model", "./model"),
        ("policy.model", "~/model"),
        ("policy.model", ["a/b"]),
        ("budget.max_usd", 1e6),
        ("budget", {"max_usd": None}),
        ("wandb.enabled", True),
        ("wandb.project", "theirs"),
        ("hub.push", True),
        ("hub.model_id", "evil/steal"),
        ("cache.mode", "refresh"),
        ("output_dir", "/etc"),
        ("extends", "/etc/passwd"),
        ("search.usd_per_search", 0.0),
        ("search.sources.General.usd_per_search", 0.0),
        ("search.sources.General.type", "exa"),
        ("search.sources.General.type", "somebodys-plugin"),
        ("search.sources.General.corpus", "/etc/passwd"),
        ("search.sources.General.options", {"url": "http://evil.example"}),
        ("search.sources.General.options", {"include_domains": ["evil.example"]}),
        ("search.sources", ["General"]),
        ("search", "x"),
        ("policy", 3),
        ("no_such_section.key", "x"),
    ],
)
def test_what_could_rob_the_user_is_left_out_and_shown(key: str, value: Any) -> None:
    kept, left = take_harmless(nest(key, value))
    assert kept == {"questions": {"source": "world"}}
    assert left, "it is shown"
    assert all(shown.startswith(key.partition(".")[0]) for shown in left)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("policy.model", "maker/base"),
        ("policy.model", "gpt2"),
        ("policy.model", "builtin:nano"),
        ("questions.source", "world"),
        ("reward.answer", "em"),
        ("sft.traces", "world"),
        ("dialogue.writer", "policy"),
        ("dialogue.follow_up", False),
        ("protocol.sources", {"Wiki": "facts", "Web": "news"}),
        ("protocol.system_prompt", "You search."),
        ("rollout.max_turns", 3),
        ("search.top_k", 5),
        ("train.learning_rate", 1e-5),
        ("evaluate.limit", None),
    ],
)
def test_what_the_agent_needs_is_taken(key: str, value: Any) -> None:
    _, left = take_harmless(nest(key, value))
    assert (taken(key, value), left) == (value, {})


def test_sources_under_any_name_search_the_passages_of_the_questions() -> None:
    tree = {
        "protocol": {"sources": {"Wiki": "facts", "Web": "news"}},
        "search": {"sources": {"Wiki": {"type": "bm25", "corpus": "questions", "options": {}},
                               "Web": {"type": "exa"}}},
    }  # fmt: skip
    kept, left = take_harmless(tree)
    assert kept["search"]["sources"].keys() == {"Wiki", "Web"}
    assert kept["search"]["sources"]["Web"]["type"] == "bm25"
    assert left == {"search.sources.Web.type": "exa"}


@pytest.mark.parametrize(
    "name",
    ["/a/b", "a/b/c", "../a", "./a", "~/a", ".a/b", "a/.b", "a\\b", "", "a/", "/a", "a b/c",
     "http://x/y", "file:///x", "a/b\n", "C:\\m", "//host/share"],
)  # fmt: skip
def test_a_path_is_no_hub_id(name: str) -> None:
    assert not is_hub_id(name)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which rsearch has written nothing."""
    monkeypatch.setenv("RSEARCH_STATE_DIR", str(tmp_path / "state"))


EVIL = "http://evil.example/v1"


def write_run(folder: Path, *settings: str) -> Path:
    """The recipe of a run, with something of a run beside it."""
    folder.mkdir()
    (folder / "trajectories.jsonl").write_text("")
    recipe = load_recipe("quickstart", settings).recipe
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    return folder / "recipe.yaml"


def test_a_recipe_of_a_run_from_elsewhere_is_refused_with_what_it_brings(
    stranger: None, tmp_path: Path
) -> None:
    path = write_run(tmp_path / "sent", f"policy.endpoint.url={EVIL}", "budget.max_usd=1000")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    line = str(caught.value)
    assert f'policy.endpoint.url="{EVIL}"' in line and "budget.max_usd=1000.0" in line
    assert line.endswith("if you trust it, add --trust-settings") and "\n" not in line
    assert load_recipe(str(path), trusted=True).recipe.policy.endpoint.url == EVIL
    cut = load_recipe(str(path), trusted=False)
    assert cut.recipe == load_recipe("quickstart").recipe
    assert cut.left_out == {"policy.endpoint.url": EVIL, "budget.max_usd": 1000.0}


def test_the_same_recipe_that_was_written_here_is_taken_whole(
    stranger: None, tmp_path: Path
) -> None:
    path = write_run(tmp_path / "mine", f"policy.endpoint.url={EVIL}")
    assert is_somebodys(path)
    remember_own(path.read_text())
    assert is_own(path) and not is_somebodys(path)
    assert load_recipe(str(path)).recipe.policy.endpoint.url == EVIL
    moved = (tmp_path / "mine").rename(tmp_path / "moved") / "recipe.yaml"
    assert load_recipe(str(moved)).recipe.policy.endpoint.url == EVIL, "a run may be moved"
    moved.write_text(moved.read_text().replace("evil", "other"))
    with pytest.raises(RecipeError, match="was changed since"):
        load_recipe(str(moved))


def test_what_the_user_says_is_not_told_as_left_out(stranger: None, tmp_path: Path) -> None:
    path = write_run(tmp_path / "sent", f"policy.endpoint.url={EVIL}")
    mine = "policy.endpoint.url=http://localhost:8000/v1"
    loaded = load_recipe(str(path), [mine])
    assert (loaded.recipe.policy.endpoint.url, loaded.left_out) == (mine.partition("=")[2], {})


def test_a_recipe_that_anybody_may_write_needs_no_trust(stranger: None, tmp_path: Path) -> None:
    path = write_run(tmp_path / "sent", "train.max_steps=3", "protocol.max_nodes=3")
    assert load_recipe(str(path)).recipe.train.max_steps == 3


def test_a_model_folder_of_somebody_else_is_never_exchanged_for_another_model(
    stranger: None, tmp_path: Path
) -> None:
    path = write_run(tmp_path / "sent", "policy.model=/data/theirs")
    with pytest.raises(RecipeError, match=r'policy\.model="/data/theirs"'):
        load_recipe(str(path), trusted=False)
    named = load_recipe(str(path), ["policy.model=/data/mine"], trusted=False)
    assert named.recipe.policy.model == "/data/mine"


def test_what_an_own_recipe_extends_is_asked_the_same(stranger: None, tmp_path: Path) -> None:
    write_run(tmp_path / "sent", f"reward.judge.base_url={EVIL}")
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: sent/recipe.yaml\nseed: 3\n")
    with pytest.raises(RecipeError, match=r"reward\.judge\.base_url"):
        load_recipe(str(mine))


def test_a_recipe_by_itself_is_the_user_s_own(stranger: None, tmp_path: Path) -> None:
    """As `rsearch recipes show NAME > recipe.yaml` makes one."""
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(load_recipe("hotpot-hard", [f"policy.endpoint.url={EVIL}"]).recipe))
    assert load_recipe(str(path)).recipe.policy.endpoint.url == EVIL


def test_no_recipe_lets_code_run_that_comes_with_a_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: quickstart\npolicy: {trust_remote_code: true}\n")
    with pytest.raises(
        RecipeValueError, match=r"is not allowed in a recipe; use --trust-remote-code"
    ):
        load_recipe(str(path), trusted=True)
    recipe = load_recipe("quickstart", (), {"policy.trust_remote_code": True}).recipe
    assert recipe.policy.trust_remote_code
    assert "trust_remote_code" not in dump_recipe(recipe)


@pytest.mark.parametrize("place", ["/proc/1/nowhere", "file"])
def test_a_state_folder_that_cannot_be_written_costs_only_the_trust(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RSEARCH_STATE_DIR", str(tmp_path / place))
    path = write_run(tmp_path / "mine")
    remember_own(path.read_text())
    assert not is_own(path)


def test_without_a_home_folder_nothing_is_noted_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RSEARCH_STATE_DIR")
    monkeypatch.setattr("platformdirs.user_state_dir", lambda *a, **k: "~nobody-here/state")
    remember_own("x")
    assert list(tmp_path.iterdir()) == []


def test_what_is_shown_is_one_short_line_that_commands_no_terminal() -> None:
    left = {f"hub.x{i}\x1b[2J": "\x1b]0;title\x07\n" + "y" * 500 for i in range(40)}
    line = describe_left_out(left)
    assert "\x1b" not in line and "\n" not in line
    assert line.endswith("and 28 more") and len(line) < 2000


def test_sources_that_are_replaced_need_no_trust(tmp_path: Path) -> None:
    path = tmp_path / "theirs.yaml"
    sources = "{General: {type: http, options: {url: 'http://evil.example'}}}"
    path.write_text(
        f"purpose: p\nhardware: h\nprotocol: {{sources: {{General: g}}}}\n"
        f"search: {{sources: {sources}}}\n"
    )
    assert load_recipe(str(path), trusted=False).left_out
    loaded = load_recipe(str(path), trusted=False, source="wikipedia")
    assert loaded.left_out == {}
    assert loaded.recipe.search.sources["General"].options == {}
