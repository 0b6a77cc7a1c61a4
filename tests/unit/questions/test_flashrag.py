from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError

from rsearch_cli.errors import DataError, DataMalformed, DataNotFound, RecipeValueError
from rsearch_cli.questions.custom import open_custom
from rsearch_cli.questions.flashrag import open_flashrag
from rsearch_cli.questions.records import write_rows
from rsearch_cli.questions.sets import load_records
from rsearch_cli.recipe.schema import QuestionsConfig
from rsearch_cli.types import Passage, Question


def row(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "question": f"What is {name}?", "golden_answers": ["Ann"]} | fields


HOTPOT = row(
    "dev_0",
    golden_answers=[" Ann ", "", "Anne", "Ann"],
    metadata={
        "type": "bridge",
        "level": "hard",
        "supporting_facts": {"title": ["Ann", "Bo", "Ann"], "sent_id": [0, 0, 1]},
        "context": {"title": ["Ann", "Bo"], "content": [["Ann is.", " So."], ["Bo is."]]},
    },
)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def local(path: Path, source: str = "flashrag:nq", **settings: Any) -> QuestionsConfig:
    return QuestionsConfig(source=source, path=str(path), **settings)


def test_a_row_with_all_that_it_can_have(tmp_path: Path) -> None:
    write(tmp_path / "dev.jsonl", HOTPOT, row("dev_1"))
    opened = open_flashrag(local(tmp_path), seed=1)
    full, bare = opened.load("validation", None)
    assert full == Question(
        id="dev_0",
        text="What is dev_0?",
        answers=("Ann", "Anne"),
        type="bridge",
        level="hard",
        supporting_titles=("Ann", "Bo"),
        metadata={"metadata": HOTPOT["metadata"]},
    )
    assert bare == Question("dev_1", "What is dev_1?", ("Ann",))
    assert list(opened.corpus()) == [
        Passage("Ann", "Ann", "Ann is. So."),
        Passage("Bo", "Bo", "Bo is."),
    ]


@pytest.mark.parametrize("folder", ["", "nq"])
def test_a_folder_has_the_splits_of_its_files(tmp_path: Path, folder: str) -> None:
    for split in ("train", "dev"):
        write(tmp_path / folder / f"{split}.jsonl", row(f"{split}_0"), row(f"{split}_1"))
    opened = open_flashrag(local(tmp_path), seed=1)
    assert (opened.name, opened.description) == ("nq", f"questions from {tmp_path / folder}")
    assert [q.id for q in opened.load("train", 1)] == ["train_0"]
    assert [q.id for q in opened.load("validation", None)] == ["dev_0", "dev_1"]
    with pytest.raises(
        DataError, match=r"^nq has no split 'test'; it has train, validation: choose one"
    ):
        opened.load("test", None)
    with pytest.raises(DataError, match=r"^nq has no corpus; set search\.sources"):
        opened.corpus()


def test_a_single_file_is_dealt_out(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", *[row(str(n)) for n in range(40)], HOTPOT)
    opened = open_flashrag(local(path, held_out_share=0.5), seed=1)
    sizes = [len(opened.load(split, None)) for split in ("train", "validation")]
    assert sum(sizes) == 41 and min(sizes) > 9
    assert [p.id for p in opened.corpus()] == ["Ann", "Bo"]


def test_what_is_written_is_read_back_by_custom(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", HOTPOT, row("q"))
    opened = open_flashrag(local(tmp_path), seed=1)
    for ending in (".json", ".jsonl", ".parquet"):
        output = tmp_path / f"out{ending}"
        write_rows([record.fields for record in load_records(opened, None)], output)
        custom = open_custom(QuestionsConfig(source="custom", path=str(output)), seed=1)
        assert [r.question for r in custom.records(None)] == opened.load("train", None)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"golden_answers": None}, "'golden_answers' is null or NaN; give it a value"),
        ({"golden_answers": ["", " "]}, "'golden_answers' contains no answer"),
        ({"question": ""}, "'question' is empty"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    path = write(tmp_path / "train.jsonl", row("a"), row("b") | change)
    with pytest.raises(DataMalformed) as caught:
        open_flashrag(local(tmp_path), seed=1).load("train", None)
    assert str(caught.value).startswith(f'{path}, line 2 (id "b"): {problem}')


def test_a_folder_without_files(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound) as caught:
        open_flashrag(local(tmp_path), seed=1)
    assert str(caught.value).startswith(
        f"{tmp_path} contains none of train.jsonl, dev.jsonl, test.jsonl; set questions.path"
    )


def test_a_name_is_needed_for_the_hub() -> None:
    with pytest.raises(RecipeValueError, match=r"needs the name of a set, such as flashrag:nq; "):
        open_flashrag(QuestionsConfig(source="flashrag"), seed=1)


def test_an_unreachable_hub_comes_with_a_remedy() -> None:
    opened = open_flashrag(QuestionsConfig(source="flashrag:nq"), seed=1)
    with pytest.raises(DataNotFound) as caught:
        opened.load("train", 1)
    assert str(caught.value).startswith(
        "RUC-NLPIR/FlashRAG_datasets cannot be downloaded from the Hub ("
    )
    assert str(caught.value).endswith("set questions.path to a folder with nq/train.jsonl")


def test_the_hub_has_a_file_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "musique" / "dev.jsonl", row("dev_0"))

    def download(repo: str, file: str, repo_type: str) -> str:
        assert (repo, repo_type) == ("RUC-NLPIR/FlashRAG_datasets", "dataset")
        if not (tmp_path / file).exists():
            raise EntryNotFoundError("404")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    opened = open_flashrag(QuestionsConfig(source="flashrag:musique"), seed=1)
    assert [q.id for q in opened.load("validation", None)] == ["dev_0"]
    with pytest.raises(
        DataError, match=r"^musique has no split 'test'; it has train, validation: choose one"
    ):
        opened.load("test", None)
    mistyped = open_flashrag(QuestionsConfig(source="flashrag:musiqe"), seed=1)
    with pytest.raises(
        DataError,
        match=r"has no musiqe/train\.jsonl; did you mean flashrag:musique\?$",
    ):
        mistyped.load("train", None)
