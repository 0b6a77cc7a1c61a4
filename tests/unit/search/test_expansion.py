from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from rsearch_cli.search.expansion import expand, find_names, read_mentions
from rsearch_cli.types import NodeResult, Passage, PlanNode


def names(text: str, title: str = "") -> list[str]:
    return find_names(title, text)


def result(query: str, *passages: tuple[str, str]) -> NodeResult:
    found = tuple(Passage(str(i), *passage) for i, passage in enumerate(passages))
    return NodeResult(PlanNode("A", query, "General"), passages=found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It was founded by Tessa Korrin in Port Ellow.", ["Tessa Korrin", "Port Ellow"]),
        ("The Beatles left Hamburg. He sang. In London", ["Beatles", "Hamburg", "London"]),
        ("the University of the Arts, Vasco da Gama", ["University of the Arts", "Vasco da Gama"]),
        ("He moved from Lund to the Isle of man.", ["Lund", "Isle"]),
        ("Founded in 1990. Located by the sea. Marrowgate is a town.", ["Marrowgate"]),
        ("She met Wedding. Wedding was kind.", ["Wedding", "Wedding"]),
        ("born on Monday, 6 March 1899, in Borås", ["Borås"]),
        ("Two towns. Four more in Ostervale.", ["Ostervale"]),
        ("by J. K. Rowling, Dr. Watson and St. Pierre", ["J K Rowling", "Dr Watson", "St Pierre"]),
        ("after World War I. The town of Ellow grew", ["World War I", "Ellow"]),
        ("Woody Allen\u2019s Café Society, Allen's", ["Woody Allen", "Café Society", "Allen"]),
        ("by Jean-Luc Godard (New Wave); O'Neill", ["Jean-Luc Godard", "New Wave", "O'Neill"]),
        ("Łukasz Żal in Ελλάδα, Москва", ["Łukasz Żal", "Ελλάδα", "Москва"]),
        ("the year 1984 and 42 others, i am A", []),
        ("in Port\u00a0 Ellow\nMarrowgate", ["Port Ellow", "Marrowgate"]),
        ("東京は日本の首都", []),
        ("", []),
    ],
)  # fmt: skip
def test_names_in_a_text(text: str, expected: list[str]) -> None:
    assert names(text) == expected


def test_a_title_keeps_its_first_word() -> None:
    assert names("They sing.", title="The Who") == ["The Who"]
    assert names("Ted ran.", title="Ted of Ellow") == ["Ted of Ellow", "Ted"]


def test_only_names_that_the_passage_adds_are_taken() -> None:
    parent = result(
        "founder of Brindle Works",
        ("Brindle Works", "Brindle Works of Ellow was founded by Tessa Korrin and Aldo Verrin."),
    )
    assert expand("birthplace of verrin aldo", [parent], "entities", 1) == (
        "Brindle Works of Ellow",
        "Tessa Korrin",
    )


def test_a_name_that_another_parent_asked_for_is_news_to_this_one() -> None:
    first = result("founder of Brindle Works", ("", "founded by Tessa Korrin"))
    second = result("Tessa Korrin", ("", "Tessa Korrin owns Brindle Works"))
    assert expand("birthplace", [first, second], "entities", 1) == ("Tessa Korrin", "Brindle Works")


def test_the_third_hop_takes_what_the_second_one_found_not_what_it_was_asked_with() -> None:
    second = replace(
        result("born", ("", "Tessa Korrin was born in Port Ellow.")), expansion=("Tessa Korrin",)
    )
    assert expand("country", [second], "entities", 1) == ("Port Ellow",)


def test_names_are_taken_once_whatever_their_case_or_accents() -> None:
    parent = result("x", ("Borås", "He saw BORÅS, Boras and The Boras Gate."))
    assert expand("y", [parent], "entities", 1) == ("Borås", "The Boras Gate")


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("北京", "北京是中国的首都。"),
        ("夏目漱石", "「こころ」の作者は夏目漱石である。"),
        ("بيروت", "بيروت هي عاصمة لبنان."),
        ("ירושלים", "עיר הבירה של ישראל."),
        ("दिल्ली", "दिल्ली भारत की राजधानी है।"),
        ("กรุงเทพ", "กรุงเทพเป็นเมืองหลวงของไทย"),
        ("თბილისი", "თბილისი საქართველოს დედაქალაქია."),
        ("tessa korrin", "tessa korrin was born in port ellow."),
    ],
)
def test_a_passage_without_capitals_gives_its_title(title: str, text: str) -> None:
    assert expand("x", [result("y", (title, text))], "entities", 1) == (title,)


def test_a_title_without_capitals_comes_before_the_names_beside_it() -> None:
    parent = result("x", ("北京", "北京的 Apple 公司由 Tim Cook 领导。"))
    assert expand("y", [parent], "entities", 1) == ("北京", "Apple", "Tim Cook")


def test_a_lower_case_title_among_capitals_stays_out() -> None:
    parent = result("x", ("the band", "She left Hamburg."), ("1984", "By Orwell."))
    assert expand("y", [parent], "entities", 2) == ("Hamburg", "Orwell")


def test_only_the_best_passages_are_read() -> None:
    parent = result("x", ("Ellow", "a"), ("Lunn", "b"), ("Marrow", "c"))
    assert expand("y", [parent], "entities", 1) == ("Ellow",)
    assert expand("y", [parent], "entities", 2) == ("Ellow", "Lunn")


def test_titles_are_taken_whole() -> None:
    parent = result(
        "storm", ("The  Who", "Tessa Korrin"), ("Storm", "b"), ("the who", "c"), ("", "d")
    )
    assert expand("y", [parent], "titles", 10) == ("The Who",)


def test_nothing_is_taken_where_nothing_was_found_or_asked_for() -> None:
    failed = NodeResult(PlanNode("A", "x", "General"), error="no answer")
    assert expand("y", [failed], "entities", 1) == ()
    assert expand("y", [], "titles", 1) == ()
    assert expand("y", [result("x", ("Ellow", "a"))], "none", 1) == ()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("No Greater Glory director", "Frank Borzage"),
        ("the director of no greater glory", "Frank Borzage"),
        ("The Greater Glory director", "Curt Rehfeld"),
        ("No Greater Glory (song) composer", "Ada Lund"),
        ("a film about glory", "Curt Rehfeld"),
    ],
)
def test_names_come_from_the_passage_that_the_parent_asked_about(query: str, found: str) -> None:
    parent = result(
        query,
        ("The Greater Glory", "a film by Curt Rehfeld"),
        ("No Greater Glory (song)", "a song by Ada Lund"),
        ("No Greater Glory", "a film by Frank Borzage"),
    )
    names = expand("born", [parent], "linked", 1)
    assert next(name for name in names if "Glory" not in name) == found
    assert expand("born", [parent], "entities", 1)[-1] == "Curt Rehfeld"


def test_a_name_found_on_the_way_is_what_the_next_hop_is_about() -> None:
    parent = replace(
        result("born", ("Brindle", "by Otto Lunn"), ("Tessa Korrin", "born in Port Ellow")),
        expansion=("Tessa Korrin",),
    )
    assert expand("country", [parent], "linked", 1) == ("Port Ellow",)


def test_mentions_start_with_what_the_parent_asked_for() -> None:
    text = "A 1934 film starring Ada Lund, directed by Frank Borzage."
    parent = result("director of No Greater Glory", ("No Greater Glory", text))
    turned = "directed by Frank Borzage.\nA 1934 film starring Ada Lund, "
    assert read_mentions([parent], 1) == (turned,)
    assert expand("born", [parent], "linked", 1) == ("Frank Borzage", "Ada Lund")
    assert expand("born", [parent], "entities", 1) == ("Ada Lund", "Frank Borzage")


def test_mentions_leave_out_the_title_that_the_parent_asked_for() -> None:
    parent = result("Valna Works chief", ("Valna Works (mill)", "valna works has named Ada Lund."))
    assert read_mentions([parent], 1) == ("\n has named Ada Lund.",)
    other = result("chief", ("Valna Works", "Valna Works has named Ada Lund."))
    assert read_mentions([other], 1) == ("Valna Works\nValna Works has named Ada Lund.",)


@pytest.mark.parametrize("query", ["glory director's cut", "a greater film", "who", ""])
def test_words_of_the_title_and_short_words_do_not_turn_a_text(query: str) -> None:
    parent = result(query, ("Greater Glory", "By who knows, a greater glory film."))
    assert read_mentions([parent], 1) == ("Greater Glory\nBy who knows, a greater glory film.",)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("No Greater Glory director", ("Frank Borzage", "Ada Lund")),
        ("No Greater Glory (film) director", ("Ada Lund",)),
    ],
)
def test_namesakes_that_a_query_fits_as_well_are_read_too(
    query: str, found: tuple[str, ...]
) -> None:
    parent = result(
        query,
        ("No Greater Glory", "by Frank Borzage"),
        ("Glory", "by Otto Lunn"),
        ("No Greater Glory (film)", "by Ada Lund"),
    )
    assert expand("born", [parent], "linked", 1) == found
    assert len(read_mentions([parent], 1)) == len(found)


@pytest.mark.parametrize(
    ("mode", "found"),
    [("linked", ("Tessa Korrin", "Aldo Verrin")), ("entities", ("Aldo Verrin", "Tessa Korrin"))],
)
def test_of_a_whole_document_the_beginning_is_read(
    mode: Literal["linked", "entities"], found: tuple[str, ...]
) -> None:
    filler = "and so on " * 900
    text = f"Of Aldo Verrin, {filler} directed by Tessa Korrin, {filler} of Port Ellow."
    parent = result("Lantern director", ("Lantern", text))
    assert expand("born", [parent], mode, 1) == found
    assert "Port Ellow" not in read_mentions([parent], 1)[0]
