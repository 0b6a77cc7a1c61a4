from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.errors import DataEmpty
from rsearch_cli.search.bm25 import Bm25Source, fuse_rankings, open_corpus, open_index
from rsearch_cli.search.postings_writer import PostingsWriter
from rsearch_cli.search.sources import SearchRequest
from rsearch_cli.types import Passage

pytestmark = pytest.mark.usefixtures("messages_on_stderr")


def find(source: Bm25Source, query: str, *expansion: str, **options: Any) -> list[Passage]:
    return asyncio.run(source.search(SearchRequest(query, expansion, **options)))


def titles(passages: Sequence[Passage]) -> list[str]:
    return [p.title for p in passages]


@pytest.fixture
def general(corpus: list[Passage], tmp_path: Path) -> Bm25Source:
    return Bm25Source("General", open_index(corpus, tmp_path))


def forbid_building(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError("the index was built again")

    monkeypatch.setattr(PostingsWriter, "finish", fail)


def test_the_best_passage_comes_first(general: Bm25Source) -> None:
    found = find(general, "Who founded the lamp maker Brindle Works?")
    assert found[0].title == "Brindle Works"
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
    assert len(found) == 3


def test_title_words_are_found_and_weigh_more(tmp_path: Path) -> None:
    passages = [Passage("1", "", "amber one two three"), Passage("2", "amber", "one two three")]
    found = find(Bm25Source("General", open_index(passages, tmp_path)), "amber")
    assert [p.id for p in found] == ["2", "1"]


def test_case_and_accents_do_not_matter(tmp_path: Path) -> None:
    passages = [Passage("1", "Élodie Brûlé", "x"), Passage("2", "Other", "y")]
    source = Bm25Source("General", open_index(passages, tmp_path))
    assert [p.id for p in find(source, "ELODIE BRULE")] == ["1"]


UNSPACED = [
    ("北京", "北京是中华人民共和国的首都，位于华北平原。"),
    ("夏目漱石", "夏目漱石は日本の小説家で、「こころ」の作者である。"),
    ("서울", "서울은 대한민국의 수도이다."),
    ("กรุงเทพ", "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"),
    ("龙", "神话中的一种动物。"),
    ("दिल्ली", "दिल्ली भारत की राजधानी है।"),
    ("Dune", "A novel by Frank Herbert."),
]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("中国的首都是哪里", "北京"),
        ("「こころ」を書いたのは誰か", "夏目漱石"),
        ("ｺｺﾛ 小説家", "夏目漱石"),
        ("대한민국 수도", "서울"),
        ("เมืองหลวงของไทย", "กรุงเทพ"),
        ("龙", "龙"),
        ("भारत राजधानी", "दिल्ली"),
        ("novel Herbert", "Dune"),
    ],
)
def test_scripts_without_blanks_are_found_by_a_part_of_a_sentence(
    query: str, title: str, tmp_path: Path
) -> None:
    passages = [Passage(str(n), *texts) for n, texts in enumerate(UNSPACED)]
    found = find(Bm25Source("General", open_index(passages, tmp_path)), query)
    assert titles(found)[:1] == [title]


def test_passages_without_a_common_word_are_left_out(general: Bm25Source) -> None:
    assert titles(find(general, "harbour", top_k=50)) == ["Port Ellow"]
    assert find(general, "zeppelin") == []
    assert find(general, "?!") == []


def test_a_source_finds_its_own_and_the_common_passages(
    corpus: list[Passage], tmp_path: Path
) -> None:
    index = open_index(corpus, tmp_path)
    found = {
        name: titles(find(Bm25Source(name, index), "Port Ellow", top_k=2))
        for name in ("General", "News", "Academy")
    }
    # Two better passages of General must not use up the places of the other sources.
    assert found == {
        "General": ["Port Ellow", "Ostervale"],
        "News": ["Storm at Port Ellow", "Ostervale"],
        "Academy": ["Ostervale"],
    }


def test_equal_scores_stand_in_the_order_of_the_corpus(tmp_path: Path) -> None:
    passages = [Passage(str(i), "", f"amber {'filler' if i % 2 else 'other'}") for i in range(40)]
    source = Bm25Source("General", open_index(passages, tmp_path))
    assert [p.id for p in find(source, "amber", top_k=7)] == list("0123456")


def test_own_words_weigh_more_than_the_expansion(tmp_path: Path) -> None:
    passages = [
        Passage("own", "", "amber filler filler"),
        Passage("added", "", "cobalt filler filler"),
        Passage("both", "", "amber cobalt filler"),
    ]
    source = Bm25Source("General", open_index(passages, tmp_path))
    assert [p.id for p in find(source, "amber", "cobalt")] == ["both", "own", "added"]
    scores = {p.id: p.score for p in find(source, "amber", "cobalt", own_words_weight=5)}
    assert scores["own"] == pytest.approx(5 * scores["added"])
    assert scores["both"] == pytest.approx(6 * scores["added"])


def test_a_word_of_several_names_counts_once(general: Bm25Source) -> None:
    once = find(general, "harbour", "Port Ellow")
    assert find(general, "harbour", "Port Ellow", "Port", "Ellow Port") == once


def test_the_index_is_kept_and_used_again(
    corpus: list[Passage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = find(Bm25Source("General", open_index(corpus, tmp_path)), "mayor of Port Ellow")
    assert [p.name[0] for p in tmp_path.iterdir()] != ["."], "a draft was left behind"
    assert len(list(tmp_path.iterdir())) == 1
    forbid_building(monkeypatch)
    loaded = find(Bm25Source("General", open_index(corpus, tmp_path)), "mayor of Port Ellow")
    assert loaded == built


def test_another_corpus_gets_an_index_of_its_own(corpus: list[Passage], tmp_path: Path) -> None:
    assert open_index(corpus, tmp_path).key != open_index(corpus[1:], tmp_path).key
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "checksums"])
def test_a_damaged_index_is_built_again(
    corpus: list[Passage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    index = open_index(corpus, tmp_path)
    expected = find(Bm25Source("General", index), "Port Ellow")
    data = tmp_path / index.key / "posting-scores.npy"
    content = data.read_bytes()
    if damage == "flip":
        data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        data.write_bytes(content[: len(content) // 2])
    elif damage == "remove":
        data.unlink()
    else:
        (tmp_path / index.key / "checksums.json").write_text("{")

    again = open_index(corpus, tmp_path)
    assert find(Bm25Source("General", again), "Port Ellow") == expected
    assert capsys.readouterr().err == (
        f"warning: BM25 index {tmp_path / index.key} is damaged; building it again\n"
    )
    forbid_building(monkeypatch)
    open_index(corpus, tmp_path)
    assert capsys.readouterr().err == ""


def test_a_build_that_is_cut_off_leaves_nothing(
    corpus: list[Passage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = PostingsWriter.finish

    def stop(self: PostingsWriter) -> None:
        finish(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PostingsWriter, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            open_index(corpus, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_one_line(
    corpus: list[Passage], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    index = open_index(corpus, blocked)
    assert titles(find(Bm25Source("News", index), "storm")) == ["Storm at Port Ellow"]
    (*_, line) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: BM25 index {blocked / index.key} cannot be kept (")


def test_passages_without_words_are_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataEmpty, match="none of the 2 passages of the corpus contains a word"):
        open_index([Passage("1", "?", "!"), Passage("2", "", "…")], tmp_path)


def test_building_and_searching_say_nothing(
    general: Bm25Source, capfd: pytest.CaptureFixture[str]
) -> None:
    find(general, "Port Ellow")
    assert capfd.readouterr() == ("", "")


def test_real_questions_find_their_evidence(hotpot_file: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in hotpot_file.read_text(encoding="utf-8").splitlines()]
    passages = {
        title: Passage(title, title, "".join(sentences))
        for row in rows
        for title, sentences in zip(
            row["context"]["title"], row["context"]["sentences"], strict=True
        )
    }
    assert len(passages) == 600
    source = Bm25Source("General", open_index(list(passages.values()), tmp_path))
    complete = sum(
        set(row["supporting_facts"]["title"])
        <= {p.title for p in find(source, row["question"], top_k=5)}
        for row in rows
    )
    assert complete / len(rows) >= 0.5


FILMS = [
    Passage("1", "Place of birth", "Where a person was born: born, birth, born."),
    Passage("2", "Born (film)", "Born is a film about a man who was born."),
    Passage("3", "Paul Martin (politician)", "Paul Martin was a politician."),
    Passage("4", "Paul Martin (director)", "Paul Martin, born 1899, directed films."),
    Passage("5", "Martin", "A given name; Paul is another."),
    Passage("6", "Elsewhere", "Nothing of the kind.", source="News"),
]


@pytest.mark.parametrize("stored", [False, True])
def test_passages_titled_by_a_name_come_first_where_titles_are_matched(
    tmp_path: Path, stored: bool
) -> None:
    if stored:
        lines = [{"id": p.id, "title": p.title, "text": p.text, "source": p.source} for p in FILMS]
        (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        index = open_corpus(tmp_path / "c.jsonl", tmp_path / "indexes")
    else:
        index = open_index(FILMS, tmp_path)
    source = Bm25Source("General", index)
    names = ("Paul Martin", "Elsewhere")
    text = "A film by Sir Paul Martin of Elsewhere."
    plain = find(source, "born", *names, top_k=2)
    matched = find(source, "born", *names, top_k=3, match_titles=True, mentions=(text,))
    assert [p.id for p in plain] == ["4", "2"], "words of the query outweigh the name"
    assert [p.id for p in matched] == ["4", "3", "2"], "of namesakes, the one that was born"
    assert matched[0].score > matched[1].score > matched[2].score > 0


def test_texts_that_mention_titles_take_turns(tmp_path: Path) -> None:
    people = ("Ada Lund", "Bo Lind", "Cy Lunn", "Di Lenz")
    index = open_index([Passage(name, name, "A person.") for name in people], tmp_path)
    texts = ("Ada Lund met Bo Lind.", "Cy Lunn met Di Lenz.")
    found = find(Bm25Source("General", index), "born", top_k=4, match_titles=True, mentions=texts)
    assert titles(found) == ["Ada Lund", "Cy Lunn", "Bo Lind", "Di Lenz"]


def test_a_query_finds_the_title_that_it_names(tmp_path: Path) -> None:
    """The index leaves out the stop word More."""
    named = [
        Passage(name, name, f"{name} was a person. Robert! Robert!") for name in ("Robert", "Bob")
    ]
    index = open_index([*named, Passage("2", "Robert More", "A botanist.")], tmp_path)
    source = Bm25Source("General", index)
    assert titles(find(source, "Robert More father", top_k=1)) == ["Robert"]
    assert titles(find(source, "Robert More father", top_k=1, match_titles=True)) == ["Robert More"]


def test_rankings_are_fused_by_reciprocal_ranks() -> None:
    fused = fuse_rankings([[7, 8], [9, 8]])
    assert list(fused) == [8, 7, 9]
    assert fused[8] == pytest.approx(2 / 62) and fused[7] == fused[9] == pytest.approx(1 / 61)
    assert list(fuse_rankings([[7, 8], [9, 0, 8]], k=0)) == [7, 9, 8, 0]
    assert fuse_rankings([[], []]) == {}
