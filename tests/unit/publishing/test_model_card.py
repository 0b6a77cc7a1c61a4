"""The model card against the Hub's rules and the run's own files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hub_repository import find_metadata_errors
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from transformers import AutoTokenizer

from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.prompts import fit_recipe, render_question
from rsearch_cli.publishing.base_model import BaseWeights, locate_base, read_licence
from rsearch_cli.publishing.card_template import fenced
from rsearch_cli.publishing.facts import Repository, public_recipe, read_run
from rsearch_cli.publishing.merge import MergeCheck
from rsearch_cli.publishing.model_card import describe_usage, system_prompt, write_card
from rsearch_cli.publishing.staging import trained_recipe
from rsearch_cli.recipe.documents import dump_document
from rsearch_cli.recipe.loading import load_recipe, override_recipe
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.services.spend import ServiceSpend
from rsearch_cli.types import Question

HUB_BASE = BaseWeights("maker/base", "maker/base", "maker/base")


@pytest.fixture(scope="module")
def run(finished_run):
    return read_run(RunFolder(finished_run))


def repository(kinds: str = "adapter", base: BaseWeights = HUB_BASE, **fields) -> Repository:
    facts = {
        "adapter": "adapter" in kinds,
        "merged": "merged" in kinds,
        "gguf": "agent-F16.gguf" if "gguf" in kinds else None,
        "licence": {"license": "apache-2.0"},
        "merge": None if kinds == "adapter" else MergeCheck(20, 19, 1),
        "has_plot": True,
    }
    return Repository("me/agent", base, rank=16, **facts | fields)


@pytest.mark.parametrize("kinds", ["adapter", "merged", "gguf", "adapter,merged,gguf"])
def test_the_metadata_pass_the_hub_s_rules(run, kinds):
    card = write_card(run, repository(kinds))
    assert find_metadata_errors(card) == []
    data = ModelCard(card).data
    assert data.base_model == "maker/base"
    assert data.license == "apache-2.0"
    assert data.library_name == {"adapter": "peft", "gguf": "gguf"}.get(kinds, "transformers")


def test_the_figures_are_those_of_the_summary_with_all_their_conditions(run):
    after = run.summary["after"]
    index = ModelCard(write_card(run, repository())).data.to_dict()["model-index"]
    name, results = model_index_to_eval_results(index)
    assert eval_results_to_model_index(name, results) == index
    metrics = {result.metric_name: result for result in results}
    assert len(metrics) == 7
    greedy = metrics["Exact match, greedy"]
    assert greedy.metric_value == round(after["em"], 4)
    assert greedy.metric_args == {
        "decoding": "greedy",
        "interval_95": [round(bound, 4) for bound in after["intervals"]["em"]],
        "interval_method": "Wilson",
        "n": 24,
        "search_provider": "General, News, Academy: BM25 over the passages of rsearch's fictional "
        "world",
        "top_k": 1,
        "judge": "none; answers are compared with the reference answers as text",
        "normalisation": "squad",
    }
    sampled = metrics["Exact match, sampled"].metric_args["decoding"]
    assert sampled == "sampled once, temperature 1, top_p 1"


def test_a_source_kind_of_another_package_claims_no_corpus(run):
    own = {"General": SourceConfig(type="csv", options={"path": "towns.csv"})}
    recipe = run.recipe.model_copy(update={"search": SearchConfig(sources=own)})
    assert replace(run, recipe=recipe).providers == "General: csv"


def test_the_card_names_the_method_of_each_interval(run):
    card = write_card(run, repository())
    (line,) = (line for line in card.splitlines() if line.startswith("- **Intervals:**"))
    assert line.startswith("- **Intervals:** 95 %; means by Wilson (greedy exact match, ")
    assert "paired differences by Bonett-Price" in line


def test_intervals_of_older_runs_are_bootstrapped(run):
    old = {
        key: {k: v for k, v in block.items() if k != "interval_methods"}
        for key, block in run.summary.items()
        if isinstance(block, dict)
    }
    older = replace(run, summary=run.summary | old)
    card = write_card(older, repository())
    assert "- **Intervals:** 95 %; means by bootstrap; paired differences by bootstrap." in card
    index = ModelCard(card).data.to_dict()["model-index"]
    _, results = model_index_to_eval_results(index)
    assert {r.metric_args["interval_method"] for r in results} == {"bootstrap"}


def test_it_renders(run):
    from markdown_it import MarkdownIt

    body = write_card(run, repository()).split("\n---\n", 1)[1]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == 1
    assert kinds.count("tr_open") == 8
    assert sum(token.tag == "h2" for token in tokens) == 2 * 9
    images = [c.attrs["src"] for t in tokens for c in t.children or () if c.type == "image"]
    assert images == ["reward.png"]
    assert all(token.level == 0 for token in tokens if token.type == "fence")


CHATML = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
TEMPLATES = {
    "plain": CHATML + "<|assistant|>",
    "opens a thought": CHATML + "<|assistant|>{{ '<think>\\n' }}",
    "forgets thoughts": CHATML.replace(
        "m.content", "(m.content.split('</think>')[-1] if m.role == 'assistant' else m.content)"
    )
    + "<|assistant|>",
    "refuses a system message": "{% if messages[0].role == 'system' %}{{ raise_exception('') }}"
    "{% endif %}" + CHATML,
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("open_thought", [False, True])
@pytest.mark.parametrize("protocol", [{}, {"system_prompt": None}, {"example_turns": 2}], ids=str)
def test_the_code_asks_what_the_run_asked(run, tmp_path, template, open_thought, protocol):
    """Also where the template could not hold the prompts of the recipe."""
    recipe = run.recipe.model_copy(
        update={
            "protocol": run.recipe.protocol.model_copy(update=protocol),
            "rollout": run.recipe.rollout.model_copy(update={"open_thought": open_thought}),
        }
    )
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    tokenizer.chat_template = template
    trained_with = ChatTokenizer(tokenizer)
    asked, _ = fit_recipe(recipe, trained_with)
    question = Question("q", "Who wrote The Amber Lamp?", ())
    ids = list(render_question(question, trained_with, asked).token_ids)

    run = replace(run, folder=tmp_path, recipe=recipe)
    tokenizer.save_pretrained(run.adapter)
    shown = trained_recipe(run)
    code = describe_usage(repository(), shown).split("up to the search plan")[1]
    code = code.split("```python\n")[1].split("inputs = ")[0]
    names = {
        "tokenizer": AutoTokenizer.from_pretrained(run.adapter),
        "SYSTEM_PROMPT": system_prompt(shown),
    }
    exec(code.replace("YOUR QUESTION", question.text), names)
    assert tokenizer.encode(names["text"], add_special_tokens=False) == ids


def shape_of(card: str) -> list[str]:
    """What a reader of the card sees it is made of, without the text."""
    from markdown_it import MarkdownIt

    body = card.split("\n---\n", 1)[1]
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(body)
    every = [child for token in tokens for child in (token, *(token.children or ()))]
    plain = ("text", "text_special", "inline", "softbreak", "code_inline")
    return [f"{token.type} {token.tag}" for token in every if token.type not in plain]


HOSTILE = (
    "x\n\n# Heading\n\n![i](https://evil.example/i.png) <img src=x onerror=y> [l](http://e.x) "
    "```` ``` ` | a | \x1b]0;t\x07\u202e&#x202e;<!-- \u200b"
)


def test_names_from_a_run_are_text_and_no_markup(run):
    recipe = run.recipe
    sources = {HOSTILE: next(iter(recipe.search.sources.values()))}
    hostile = recipe.model_copy(
        update={
            "questions": recipe.questions.model_copy(update={"source": HOSTILE}),
            "search": recipe.search.model_copy(update={"sources": sources}),
            "policy": recipe.policy.model_copy(update={"adapter": HOSTILE}),
            "protocol": recipe.protocol.model_copy(
                update={"sources": {HOSTILE: HOSTILE}, "system_prompt": HOSTILE}
            ),
        }
    )
    summary = json.loads(json.dumps(run.summary))
    weak = {"em": 0.1, "n": 3}
    summary["after"]["by_type"] = {"plain": weak}
    benign = replace(run, summary=summary)
    benign_recipe = recipe.model_copy(
        update={
            "policy": recipe.policy.model_copy(update={"adapter": "sft"}),
            "protocol": recipe.protocol.model_copy(update={"system_prompt": "Search."}),
        }
    )
    expected = shape_of(write_card(replace(benign, recipe=benign_recipe), repository()))
    summary = json.loads(json.dumps(summary))
    summary["after"] |= {"by_type": {HOSTILE: weak}, "n": HOSTILE, "failed_searches": HOSTILE}
    summary |= {"questions": HOSTILE.replace("/", ""), "split": HOSTILE}
    environment = {"device": HOSTILE, "dtype": HOSTILE, "packages": {HOSTILE: HOSTILE}}
    services = {HOSTILE: ServiceSpend(usd=1.0)}
    attacked = replace(
        run, recipe=hostile, summary=summary, environment=environment, services=services
    )
    base = BaseWeights(HOSTILE, "maker/base", "maker/base")
    licence = {"license": "other", "license_name": HOSTILE}
    card = write_card(attacked, repository(base=base, licence=licence))
    # One more point in the list of limits: searches of the evaluation failed.
    point = ["list_item_open li", "paragraph_open p", "paragraph_close p", "list_item_close li"]
    seen = shape_of(card)
    assert len(seen) == len(expected) + len(point)
    assert sorted(seen) == sorted([*expected, *point])
    assert not set(card) & set("\x1b\x07\u202e\u200b")
    assert ModelCard(card).data.license_name


def test_missing_facts_are_stated_as_missing(run):
    bare = replace(run, summary={}, rows=[], environment={}, services={})
    card = write_card(bare, repository(has_plot=False, licence={"license": "unknown"}))
    assert "Not measured: the run's final evaluation did not complete." in card
    assert "**Time in training steps:** not recorded." in card
    assert "**Hardware:** not recorded" in card
    assert "unknown; no model card of the base was found" in card
    assert "reward.png" not in card
    assert "model-index" not in card
    assert find_metadata_errors(card) == []


def test_spend_hours_and_hardware_are_the_run_s_own(run):
    spent = {"exa": ServiceSpend(usd=1.25), "judge": ServiceSpend(usd=0.5)}
    rows = [{"step": 1, "seconds/step": 5400.0}, {"step": 2, "seconds/step": 1800.0}]
    environment = {"device": "RTX 4090", "device_memory_gb": 23.6}
    run = replace(run, services=spent, rows=rows, environment=environment)
    card = write_card(run, repository())
    assert "**Hardware:** RTX 4090, 23.6 GB." in card
    assert "**Time in training steps:** 2.00 h" in card
    assert "**Paid services:** $1.7500 (exa $1.2500, judge $0.5000)." in card


def test_a_merge_into_full_precision_is_a_stated_limitation(run):
    policy = run.recipe.policy.model_copy(update={"load_in_4bit": True})
    quantised = replace(run, recipe=run.recipe.model_copy(update={"policy": policy}))
    card = write_card(quantised, repository("merged"))
    assert "4 bits (NF4)" in card
    assert "Trained and evaluated on 4-bit weights but merged into full-precision ones" in card
    assert "19 of 20 prompts were identical, 1 diverged at a near-tie" in card


def test_the_base_inside_rsearch_goes_along_with_its_licence(run):
    base = locate_base(run.recipe.policy, None)
    licence = read_licence(base)
    assert licence == {"license": "apache-2.0"}
    card = write_card(run, repository(base=base, licence=licence))
    assert "builtin:nano, which ships with rsearch; its weights are in `base/`." in card
    assert ModelCard(card).data.base_model is None


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: other\nlicense_name: x\n---\n", {"license": "other", "license_name": "x"}),
        ("---\nlicense_link: x\n---\n", {"license": "unknown"}),
        ("no metadata", {"license": "unknown"}),
        ("---\nlicense: [broken\n---\n", {"license": "unknown"}),
        (None, {"license": "unknown"}),
    ],
)
def test_the_licence_is_the_one_of_the_base_s_own_card(tmp_path, card, licence):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert read_licence(BaseWeights(str(tmp_path), None, "x")) == licence


def test_a_base_that_cannot_be_asked_has_an_unknown_licence():
    assert read_licence(HUB_BASE) == {"license": "unknown"}


def test_no_path_of_the_run_stays_in_the_recipe(run, tmp_path):
    corpus = {
        name: source.model_copy(update={"corpus": str(tmp_path / "passages.jsonl")})
        for name, source in run.recipe.search.sources.items()
    }
    recipe = run.recipe.model_copy(
        update={
            "questions": run.recipe.questions.model_copy(
                update={"source": "custom", "path": str(tmp_path / "mine.jsonl")}
            ),
            "search": run.recipe.search.model_copy(update={"sources": corpus}),
            "policy": run.recipe.policy.model_copy(
                update={"model": str(tmp_path), "adapter": str(tmp_path / "cold-start")}
            ),
            "rollout": run.recipe.rollout.model_copy(
                update={"engine": "vllm-server", "vllm_url": "http://mine:8000"}
            ),
            "sft": run.recipe.sft.model_copy(update={"traces": str(tmp_path / "mine.jsonl")}),
        }
    )
    public = public_recipe(recipe, "maker/base")
    assert public["policy"]["model"] == "maker/base"
    assert "adapter" not in public["policy"], "what is published holds it"
    assert public["rollout"].keys() == {
        *("max_turns", "max_new_tokens", "open_thought", "temperature", "top_p")
    }
    assert "questions" not in public
    assert str(tmp_path) not in json.dumps(public)
    card = write_card(replace(run, recipe=recipe), repository())
    assert "Licence of the questions: not recorded in the run." in card
    assert str(tmp_path) not in card


INTERNAL = {
    "reward.judge.base_url": "http://judge.acme.internal:8000/v1",
    "policy.endpoint.url": "http://10.0.0.7:8000/v1",
    "wandb.project": "acme-secret-project",
    "wandb.run_name": "acme-run",
    "hub.model_id": "acme/other",
    "budget.max_usd": 123456.0,
    "search.usd_per_search": 0.123456,
    "reward.judge.model": "acme-judge",
    "output_dir": "/data/acme/run",
    "purpose": "For the customer ACME",
}


def test_the_published_recipe_holds_nothing_that_only_concerns_the_one_who_trained(run):
    """Neither in the file nor on the card, and it loads again for anybody."""
    flags = {**INTERNAL, "search.sources.General.type": "exa", "seed": 7}
    options = {"category": "company", "include_domains": ["acme.example", "acme.example/docs"]}
    recipe = load_recipe(str(run.folder / "recipe.yaml"), (), flags, trusted=True).recipe
    source = recipe.search.sources["General"].model_copy(update={"options": options})
    sources = {**recipe.search.sources, "General": source}
    search = recipe.search.model_copy(update={"sources": sources})
    recipe = recipe.model_copy(update={"search": search})
    text = dump_document(public_recipe(recipe, "maker/base"))
    card = write_card(replace(run, recipe=recipe), repository())
    for told in (text, card):
        for secret in (*map(str, INTERNAL.values()), "acme"):
            assert secret.lower() not in told.lower()
    path = run.folder.parent / "published.yaml"
    path.write_text(text)
    again = load_recipe(str(path), trusted=True).recipe
    assert (again.seed, again.protocol, again.train) == (7, recipe.protocol, recipe.train)
    general = again.search.sources["General"]
    assert (general.type, general.options) == ("exa", {"category": "company"})
    assert load_recipe(str(path), trusted=False).left_out == {
        "search.sources.General.type": "exa",
        "search.sources.General.options": {"category": "company"},
    }


@pytest.mark.parametrize(
    ("source", "published"),
    [
        ({"type": "tavily", "options": {"search_depth": "advanced"}}, None),
        ({"type": "wikipedia", "options": {"language": "de"}}, None),
        ({"type": "hybrid", "options": {"encoder": "BAAI/bge-small-en-v1.5"}}, None),
        ({"type": "serper", "corpus": "unused.jsonl", "usd_per_search": 0.5}, {"type": "serper"}),
        ({"type": "dense", "corpus": "mine.jsonl"}, {"type": "bm25"}),
        ({"type": "dense", "options": {"encoder": "../models/e5"}}, {"type": "bm25"}),
        ({"type": "dense", "options": {"index": "/data/e5.index"}}, {"type": "bm25"}),
        ({"type": "http", "options": {"url": "http://10.0.0.7:8000"}}, {"type": "bm25"}),
        ({"type": "plug-in", "options": {"nested": {"files": ["~/a"]}}}, {"type": "bm25"}),
    ],
    ids=str,
)
def test_a_published_source_is_what_it_was_unless_it_needs_this_machine(run, source, published):
    sources = {**run.recipe.search.sources, "General": SourceConfig(**source)}
    search = run.recipe.search.model_copy(update={"sources": sources})
    public = public_recipe(run.recipe.model_copy(update={"search": search}), "maker/base")
    assert public["search"]["sources"]["General"] == (published or source)


def test_a_card_says_how_the_questions_were_chosen(run):
    chosen = {"chosen": 40, "of": 90, "pass_rate": [0.1, 0.9], "order": "easy_to_hard"}
    card = write_card(replace(run, summary={**run.summary, "chosen": chosen}), repository())
    said = "Of 90 training questions, 40 were used, chosen by pass rate from 0.1 to 0.9 and asked "
    assert f"{said}from easy to hard. As recorded by the run" in " ".join(card.split())
    assert "were used, chosen by pass rate" not in write_card(run, repository())


def test_a_cold_start_is_not_called_reinforcement_learning(run):
    recipe = run.recipe.model_copy(update={"stage": "sft"})
    summary = {**run.summary, "traces": {"taken": 480, "rejected": {}}}
    card = write_card(replace(run, recipe=recipe, summary=summary), repository(has_plot=False))
    assert "- **Traces:** 480, from the fictional world." in card
    assert "This run contains no reinforcement learning." in card
    tags = ModelCard(card).data.tags
    assert "sft" in tags and "grpo" not in tags
    teacher = {"url": "http://10.0.0.7:8000/v1", "model": "/data/acme/wise-7b"}
    recipe = override_recipe(recipe, [], {"sft.traces": "teacher", "sft.teacher": teacher}).recipe
    for counts, told in (
        ({"taken": 18, "rejected": {"with a wrong answer": 5}, "failed": 1}, "18, from the 24 "),
        (None, "an unrecorded number of, from the "),
    ):
        summary = {**run.summary, "traces": counts}
        card = write_card(replace(run, recipe=recipe, summary=summary), repository(has_plot=False))
        assert f"- **Traces:** {told}answers of `wise-7b` to training questions" in card
        assert "acme" not in card and "10.0.0.7" not in card
    assert "grpo" in ModelCard(write_card(run, repository())).data.tags


def test_the_card_names_every_part_of_the_reward(run):
    reward = {"reward.extra": {"retrieval": 1.0, "no_answer": 0.25}, "reward.curriculum_steps": 0}
    recipe = override_recipe(run.recipe, [], reward).recipe
    (line,) = (
        line
        for line in write_card(replace(run, recipe=recipe), repository()).splitlines()
        if line.startswith("- **Reward:**")
    )
    assert line.endswith("; plus `retrieval`, weighted 1; plus `no_answer`, weighted 0.25.")
    assert "in the first" not in line


def test_the_starting_adapter_is_named_without_its_path(run):
    policy = run.recipe.policy.model_copy(update={"adapter": "/home/me/runs/sft"})
    recipe = run.recipe.model_copy(update={"policy": policy})
    card = write_card(replace(run, recipe=recipe), repository())
    assert "**Started from:** the trained adapter `sft`" in card
    assert "/home/me" not in card


def test_backticks_in_a_prompt_do_not_end_its_block():
    assert fenced("a\n```\nb") == "````\na\n```\nb\n````"
