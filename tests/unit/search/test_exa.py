from __future__ import annotations

import json

import pytest

from rsearch_cli.errors import AccessDenied, RecipeKeyError, RecipeValueError, SourceError
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.search.exa import ExaOptions, ExaSource
from rsearch_cli.search.exa import open_exa as open_kind
from rsearch_cli.search.exa_client import API_URL, ExaClient
from rsearch_cli.search.sources import open_sources, read_options
from rsearch_cli.search.web_pages import tidy
from rsearch_cli.types import Passage

KEY = "a-key-that-must-stay-hidden"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXA_API_KEY", KEY)
    monkeypatch.delenv("EXA_BASE_URL", raising=False)


def open_exa(configs: dict[str, SourceConfig]) -> dict[str, ExaSource]:
    def refuse() -> list[Passage]:
        raise AssertionError("Exa needs no passages of the question set")

    return open_kind(configs, refuse, None)


def open_one(name: str = "News", **options: object) -> ExaSource:
    return open_exa({name: SourceConfig.model_validate({"type": "exa", "options": options})})[name]


def found(**fields: object) -> Passage:
    page = {"id": "https://a.example/1", "title": "A", "text": "b", "score": 0.0}
    return tidy(Passage(**(page | fields)), 60)


def test_the_fingerprint_holds_version_address_category_and_every_option() -> None:
    fingerprint = open_one("Academy", include_domains=["a.example"], max_characters=700).fingerprint
    start = f"exa/v2/{API_URL}/"
    assert fingerprint.startswith(start)
    assert json.loads(fingerprint.removeprefix(start)) == {
        "category": "publication",
        "type": None,
        "include_domains": ["a.example"],
        "exclude_domains": [],
        "start_published_date": None,
        "end_published_date": None,
        "max_characters": 700,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"category": "company"},
        {"type": "lite"},
        {"include_domains": ["a.example"]},
        {"exclude_domains": ["a.example"]},
        {"start_published_date": "2024-01-01"},
        {"end_published_date": "2024-01-01"},
        {"max_characters": 999},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_option_changes_the_fingerprint(options: dict[str, object]) -> None:
    assert open_one(**options).fingerprint != open_one().fingerprint
    assert options.keys() <= ExaOptions.model_fields.keys()


def test_the_name_counts_only_by_its_category() -> None:
    assert open_one("General").fingerprint == open_one("Web").fingerprint
    assert open_one("News").fingerprint == open_one("Web", category="news").fingerprint
    assert open_one("General").fingerprint != open_one("News").fingerprint


def test_the_address_changes_the_fingerprint_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXA_BASE_URL", "https://me:secret@proxy.example:8443/exa/")
    assert open_one().fingerprint.startswith("exa/v2/https://proxy.example:8443/exa/{")


def open_recipe(*, offline: bool) -> dict[str, object]:
    search = SearchConfig(
        sources={"General": SourceConfig(type="exa"), "News": SourceConfig(type="exa")}
    )
    return dict(open_sources(search, list, offline=offline))


def test_a_missing_key_is_told_with_the_place_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXA_API_KEY", "  ")
    with pytest.raises(AccessDenied) as caught:
        open_recipe(offline=False)
    assert str(caught.value) == (
        "Exa needs a key and EXA_API_KEY is not set; get one at https://dashboard.exa.ai/api-keys, "
        "or search without one, as with type: wikipedia"
    )


def test_offline_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with_key = open_recipe(offline=True)
    monkeypatch.delenv("EXA_API_KEY")
    without = open_recipe(offline=True)
    for name, source in with_key.items():
        assert source.fingerprint == without[name].fingerprint


def test_white_space_around_the_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXA_API_KEY", f" {KEY}\n")
    assert list(open_recipe(offline=False)) == ["General", "News"]


def test_news_age_faster_than_the_rest() -> None:
    names = ("General", "News", "Academy")
    assert [open_one(name).cache_days for name in names] == [30.0, 1.0, 30.0]
    assert open_one("Own", category="news").cache_days == 1.0


@pytest.mark.parametrize(
    "url",
    [
        "api.exa.ai",
        "ftp://api.exa.ai",
        "https://",
        "http://[::1",
        "http://a:b",
        "me:secret@a.example",
    ],
)
def test_an_address_that_is_none_is_told_before_anything_is_sent(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXA_BASE_URL", url)
    with pytest.raises(SourceError) as caught:
        open_one()
    assert str(caught.value) == (
        f"EXA_BASE_URL is not an http address, got {url.removeprefix('me:secret@')!r}; unset it to "
        "use https://api.exa.ai"
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"categorie": "news"},
            RecipeKeyError,
            "unknown key search.sources.News.options.categorie; did you mean category?",
        ),
        (
            {"xyz": 1},
            RecipeKeyError,
            "unknown key search.sources.News.options.xyz; known here: category, type, "
            "include_domains, exclude_domains, start_published_date, end_published_date, "
            "max_characters",
        ),
        (
            {"category": "research paper"},
            RecipeValueError,
            'search.sources.News.options.category must be "company", "news", "publication", '
            '"personal site", "financial report" or "people", got "research paper"',
        ),
        (
            {"category": "tweet", "type": "keyword"},
            RecipeValueError,
            'search.sources.News.options.category must be "company", "news", "publication", '
            '"personal site", "financial report" or "people", got "tweet"; '
            'search.sources.News.options.type must be "auto", "fast", "deep-lite", "deep", '
            '"deep-reasoning", "neural", "instant" or "lite", got "keyword"',
        ),
        (
            {"max_characters": "500"},
            RecipeValueError,
            'search.sources.News.options.max_characters must be a whole number, got "500"',
        ),
        (
            {"max_characters": 10, "include_domains": "a.example"},
            RecipeValueError,
            'search.sources.News.options.include_domains must be a list, got "a.example"; '
            "search.sources.News.options.max_characters must be at least 40, got 10",
        ),
        (
            {"start_published_date": "20240101"},
            RecipeValueError,
            "search.sources.News.options.start_published_date: must be a day as 'YYYY-MM-DD', got "
            "'20240101'",
        ),
        (
            {"end_published_date": "2023-02-29"},
            RecipeValueError,
            "search.sources.News.options.end_published_date: must be a day as 'YYYY-MM-DD', got "
            "'2023-02-29'",
        ),
        (
            {"start_published_date": "2024-05-01", "end_published_date": "2024-05-01"},
            RecipeValueError,
            "search.sources.News.options: start_published_date 2024-05-01 is not before "
            "end_published_date 2024-05-01",
        ),
        (
            {"include_domains": ["a.example"], "exclude_domains": ["b.example"]},
            RecipeValueError,
            "search.sources.News.options: include_domains and exclude_domains exclude each other; "
            "keep one",
        ),
        (
            {"max_characters": 10, "xyz": 1},
            RecipeValueError,
            "search.sources.News.options.max_characters must be at least 40, got 10; unknown key "
            "search.sources.News.options.xyz; known here: category, type, "
            "include_domains, exclude_domains, start_published_date, end_published_date, "
            "max_characters",
        ),
    ],
)
def test_options_that_cannot_be_are_told_before_the_key_is_asked_for(
    options: dict[str, object],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EXA_API_KEY")
    with pytest.raises(error) as caught:
        open_one(**options)
    assert str(caught.value) == message
    assert type(caught.value) is error


def test_options_are_read_as_they_stand() -> None:
    config = SourceConfig(type="exa", options={"end_published_date": "2024-02-29"})
    assert read_options(ExaOptions, "News", config) == ExaOptions(end_published_date="2024-02-29")


def test_every_option_is_documented() -> None:
    assert all(field.description for field in ExaOptions.model_fields.values())


def test_a_whole_text_stays_whole() -> None:
    assert found(text="One sentence. No stop at the end").text == "One sentence. No stop at the end"


@pytest.mark.parametrize("length", [60, 90])
def test_a_text_that_exa_may_have_cut_ends_where_a_sentence_does(length: int) -> None:
    text = "The harbour closed on Monday. It opened again. " + "The storm went on" * 9
    assert found(text=text[:length]).text == "The harbour closed on Monday. It opened again."


def test_a_cut_text_is_one_line_before_it_is_cut() -> None:
    text = ("The harbour\n\nclosed on Monday.\nIt opened." + " and so on" * 9)[:60]
    assert found(text=text).text == "The harbour closed on Monday. It opened."


def test_a_cut_text_without_a_sentence_ends_at_a_word() -> None:
    assert found(text="word " * 12).text == "word " * 10 + "word…"


def test_a_page_of_blanks_has_no_text() -> None:
    assert found(text=" \n" * 30).text == ""


def test_a_long_title_is_cut() -> None:
    assert found(title="word " * 100).title == "word " * 59 + "word…"


def test_a_score_is_kept() -> None:
    assert found(score=0.75).score == 0.75


def test_nothing_shows_the_key() -> None:
    exa = ExaClient(KEY)
    source = ExaSource("News", ExaOptions(), exa)
    seen = f"{exa!r}{source!r}{vars(exa)}{vars(source)}{source.fingerprint}"
    assert KEY not in seen
