from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.errors import DataMalformed
from rsearch_cli.services.cache import (
    AnswerCache,
    cache_root,
    make_key,
    normalise,
    read_key,
)
from rsearch_cli.services.store import FORMAT

pytestmark = pytest.mark.usefixtures("messages_on_stderr")

ODD = [
    {"id": "a\u0000b", "title": "𝄞 e\u0301 \u202eright", "score": 1.5, "none": None, "yes": True},
    "</result><answer>42</answer>\u2028\n",
    ["lone \ud800 surrogate, \ufeff mark", 1e-9, 12345678901234567890, {}],
]
KEY = make_key("exa", query="Port Ellow")


def rewrite(cache: AnswerCache, value: object) -> None:
    """Put something else in the place of every stored text."""
    cache.close()
    with sqlite3.connect(cache.folder / "cache.db") as connection:
        connection.execute("UPDATE Cache SET value = ?", (value,))


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Callable[..., AnswerCache]]:
    """Open the same cache at a given time."""
    opened: list[AnswerCache] = []

    def at(seconds: float, mode: Any = "read-write") -> AnswerCache:
        opened.append(AnswerCache(tmp_path / "answers", mode, clock=lambda: seconds))
        return opened[-1]

    yield at
    for cache in opened:
        cache.close()


def test_the_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path))
    assert cache_root() == tmp_path
    assert AnswerCache().folder == tmp_path / "answers"
    monkeypatch.delenv("RSEARCH_CACHE_DIR")
    assert cache_root().name == "rsearch"


def test_a_key_holds_all_parts_in_one_order() -> None:
    key = make_key("exa", query="é", options={"b": 1, "a": (2,)})
    assert key == make_key("exa", options={"a": [2], "b": 1}, query="é")
    assert read_key(key) == {
        "service": "exa", "version": 1, "query": "é", "options": {"a": [2], "b": 1}
    }  # fmt: skip
    assert key.isascii()
    assert len({key, make_key("judge", query="é"), make_key("exa", query="e")}) == 3
    assert read_key("no JSON") == read_key("[1]") == {}


def test_normalised_text_has_one_form() -> None:
    assert normalise(" Cafe\u0301  Ellow\n") == normalise("Caf\u00e9 Ellow") == "Caf\u00e9 Ellow"
    assert normalise("café") != normalise("Café")


def test_answers_outlive_the_object(cache: AnswerCache) -> None:
    assert cache.get(KEY) is None
    assert cache.put(KEY, ODD, usd=0.005).value == ODD
    cache.put("nothing found", [])
    assert cache.get(KEY) == ODD
    with AnswerCache(cache.folder) as other:
        assert other.get(KEY) == ODD
        assert other.get("nothing found") == []
        entry = other.find(KEY)
        assert entry is not None
        assert (entry.usd, entry.ttl) == (0.005, None)


def test_a_large_answer_is_one_commit(cache: AnswerCache) -> None:
    large = [{"text": "x\ny ü" * 20_000}] * 10
    cache.put(KEY, large)
    assert cache.get(KEY) == large
    assert not [p for p in cache.folder.iterdir() if p.is_dir()]


def test_on_disk_is_json_under_the_key(cache: AnswerCache) -> None:
    cache.put(KEY, ODD)
    cache.close()
    with sqlite3.connect(cache.folder / "cache.db") as connection:
        ((key, value, tag),) = connection.execute("SELECT key, value, tag FROM Cache").fetchall()
    assert (key, tag) == (KEY, "exa")
    assert json.loads(value)["value"] == ODD


def test_nothing_is_opened_before_it_is_needed(cache: AnswerCache) -> None:
    cache.close()
    assert not cache.folder.exists()


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {1, 2}])
def test_what_is_no_json_is_refused(cache: AnswerCache, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="JSON"):
        cache.put(KEY, value)
    assert cache.get(KEY) is None


def test_an_answer_lives_as_long_as_it_may(at: Callable[..., AnswerCache]) -> None:
    at(1000.0).put(KEY, 1, ttl_seconds=60.0)
    assert at(1059.9).get(KEY) == 1
    assert at(1060.0).get(KEY) is None
    at(1061.0).put(KEY, 2)
    assert at(1e9).get(KEY) == 2


def test_offline_takes_what_is_too_old(at: Callable[..., AnswerCache]) -> None:
    at(1000.0).put(KEY, 1, ttl_seconds=60.0)
    assert at(1e9, "offline").get(KEY) == 1


def test_refresh_takes_only_what_is_new(at: Callable[..., AnswerCache]) -> None:
    at(1000.0).put(KEY, 1)
    refreshing = at(2000.0, "refresh")
    assert refreshing.get(KEY) is None
    refreshing.put(KEY, 2)
    assert refreshing.get(KEY) == 2
    assert at(2001.0).get(KEY) == 2
    assert at(2002.0, "refresh").get(KEY) is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "3",
        "null",
        "{}",
        '{"version":2,"stored":1.0,"ttl":null,"usd":0.0,"value":1}',
        '{"version":1,"stored":"1","ttl":null,"usd":0.0,"value":1}',
        '{"version":1,"stored":true,"ttl":null,"usd":0.0,"value":1}',
        '{"version":1,"stored":1.0,"ttl":-5,"usd":0.0,"value":1}',
        '{"version":1,"stored":1.0,"ttl":null,"usd":NaN,"value":1}',
        '{"version":1,"stored":1.0,"ttl":null,"usd":0.0,"value":1,"more":1}',
        b"\x80\x04N.",
        17,
    ],
)
def test_an_entry_that_cannot_be_read_is_a_miss_and_said_once(
    cache: AnswerCache, text: object, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.put(KEY, 1)
    cache.put("other", 1)
    rewrite(cache, text)
    assert cache.get(KEY) is None
    assert cache.get("other") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: answer cache {cache.folder}: an entry cannot be read (")
    assert line.endswith(f"it and others like it are skipped: {KEY}")
    cache.put(KEY, 2)
    assert cache.get(KEY) == 2
    assert [row["key"] for row in cache.export_rows()] == [KEY]


def test_nothing_is_ever_unpickled(
    cache: AnswerCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import diskcache

    class Bomb:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "exploded"), "w"))

    cache.put(KEY, 1)
    cache.close()
    with diskcache.Cache(str(cache.folder)) as foreign:
        foreign.set(KEY, Bomb())
        foreign.set(Bomb(), "under a key of its own")
    assert cache.get(KEY) is None
    assert list(cache.export_rows()) == []
    assert not (tmp_path / "exploded").exists()
    assert "the entry is not text" in capsys.readouterr().err


def test_stats_tell_services_apart(at: Callable[..., AnswerCache]) -> None:
    at(1000.0).put(make_key("exa", query="a"), 1, 60.0, usd=0.005)
    at(1030.0).put(make_key("exa", query="b"), 1, 60.0, usd=0.005)
    at(1040.0).put(make_key("judge", question="a"), 1, usd=0.001)
    stats = at(1070.0).stats()
    assert list(stats) == ["exa", "judge"]
    exa, judge = stats.values()
    assert (exa.entries, exa.expired, exa.oldest, exa.newest) == (2, 1, 1000.0, 1030.0)
    assert exa.usd == pytest.approx(0.01)
    assert (judge.entries, judge.expired) == (1, 0)
    assert at(1070.0).size_bytes() > 0


def test_clear_removes_one_service_or_all(cache: AnswerCache) -> None:
    for number in range(150):
        cache.put(make_key("exa", query=str(number)), number)
    cache.put(make_key("judge", question="a"), 1)
    assert cache.clear("no such") == 0
    assert cache.clear("exa") == 150
    assert list(cache.stats()) == ["judge"]
    assert cache.clear() == 1
    assert cache.stats() == {}


def test_what_is_exported_and_imported_is_the_same_text(
    at: Callable[..., AnswerCache], tmp_path: Path
) -> None:
    source = at(1234.5678901)
    for number, service in enumerate(["exa", "judge", "bm25"] * 5):
        source.put(make_key(service, query=f"q{number}"), [ODD, number], 86400.0, usd=0.1 + 0.2)
    rows = [json.dumps(row) for row in source.export_rows()]
    assert len(rows) == 15
    with AnswerCache(tmp_path / "copy") as copy:
        copy.put(make_key("exa", query="q0"), "older")
        assert copy.import_rows(map(json.loads, rows)) == 15
        assert [json.dumps(row) for row in copy.export_rows()] == rows
        assert copy.find(make_key("exa", query="q0")) is None, "its time was over long ago"
    with AnswerCache(tmp_path / "copy", "offline") as copy:
        key = make_key("exa", query="q0")
        assert copy.find(key) == source.find(key)
    assert [r["key"] for r in source.export_rows("judge")] == [
        json.loads(row)["key"] for row in rows if '\\"judge\\"' in row
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (3, "no object with a key"),
        ([["key", KEY]], "no object with a key"),
        ({"key": KEY}, "missing 4 required positional arguments"),
        ({}, "no object with a key"),
        ({"key": 3}, "no object with a key"),
        ({"key": "no JSON"}, "its key is not written as keys are"),
        ({"key": '"text"'}, "its key is not written as keys are"),
        ({"key": "[" * 100_000}, "its key is not written as keys are"),
        ({"key": f" {KEY}"}, "its key is not written as keys are"),
        ({"key": KEY.replace("Port", "P\ud800rt")}, "its key is not written as keys are"),
        ({"key": KEY.replace('"version":1', '"version":NaN')}, "its key is not written as keys"),
        ({"key": KEY.replace('"version":1', '"version":2')}, "its key is not written as keys are"),
        ({"key": KEY.replace('"service":"exa"', '"service":3')}, "its key names no service"),
        ({"key": KEY.replace('"exa"', '""')}, "its key names no service"),
        ({"key": KEY.replace('"exa"', r'"\u001b]0;owned"')}, "its key names no service"),
        ({"key": KEY.replace('"exa"', r'"\u202eaxe"')}, "its key names no service"),
        ({"version": 7}, "version 7, not 1"),
        ({"version": True}, "version True, not 1"),
        ({"version": "1"}, "version '1', not 1"),
        ({"stored": 1e300}, "1e+300 is not a time in seconds"),
        ({"stored": 10**400}, "is not a time in seconds"),
        ({"stored": float("nan")}, "nan is not a time in seconds"),
        ({"stored": -1.0}, "-1.0 is not a time in seconds"),
        ({"stored": None}, "None is not a time in seconds"),
        ({"stored": "1.0"}, "'1.0' is not a time in seconds"),
        ({"stored": 4e9}, "it was stored in the future, at 4000000000.0"),
        ({"ttl": float("inf")}, "inf is not a time in seconds"),
        ({"ttl": -1}, "-1 is not a time in seconds"),
        ({"ttl": [1]}, "[1] is not a time in seconds"),
        ({"usd": -0.01}, "-0.01 is not a price in USD"),
        ({"usd": 1e9}, "1000000000.0 is not a price in USD"),
        ({"usd": float("nan")}, "nan is not a price in USD"),
        ({"usd": True}, "True is not a price in USD"),
        ({"value": float("nan")}, "Out of range float values are not JSON compliant"),
        ({"more": 1}, "unexpected keyword argument 'more'"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_an_import_with_a_wrong_row_leaves_the_cache_as_it_was(
    cache: AnswerCache, row: object, problem: str
) -> None:
    cache.put(KEY, "mine")
    other = make_key("exa", query="Marrowgate")
    good = {"version": 1, "stored": 1.0, "ttl": None, "usd": 0.0, "value": "theirs"}
    if isinstance(row, dict) and "key" not in row and row:
        row = {"key": KEY, **good, **row}
    with pytest.raises(DataMalformed) as caught:
        cache.import_rows([{"key": other, **good}, row])
    assert str(caught.value).startswith("row 2 is not an exported answer (")
    assert problem in str(caught.value)
    assert (cache.get(KEY), cache.find(other)) == ("mine", None)


def test_an_import_with_a_key_twice_leaves_the_cache_as_it_was(cache: AnswerCache) -> None:
    row = {"key": KEY, "version": 1, "stored": 1.0, "ttl": None, "usd": 0.0, "value": "theirs"}
    with pytest.raises(DataMalformed, match="row 2 has the key of an earlier row"):
        cache.import_rows([row, row])
    assert cache.stats() == {}


def test_an_import_of_more_than_is_kept_leaves_the_cache_as_it_was(
    cache: AnswerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsearch_cli.services.cache.SIZE_LIMIT", 10_000)
    row = {"version": 1, "stored": 1.0, "ttl": None, "usd": 0.0, "value": "x" * 3000}
    rows = ({"key": make_key("exa", query=str(n)), **row} for n in range(9))
    with pytest.raises(DataMalformed, match="the answers have more than 10000 bytes together"):
        cache.import_rows(rows)
    assert cache.stats() == {}


def test_an_import_that_breaks_off_while_it_is_written_leaves_the_cache_as_it_was(
    cache: AnswerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diskcache

    cache.put(KEY, "mine")
    row = {"version": 1, "stored": 1.0, "ttl": None, "usd": 0.0, "value": "theirs"}
    rows = [{"key": make_key("exa", query=str(n)), **row} for n in range(9)]
    put, written = diskcache.Cache.set, []

    def put_some(self: diskcache.Cache, key: str, *arguments: object, **options: object) -> bool:
        written.append(key)
        if len(written) == 5:
            raise KeyboardInterrupt
        return bool(put(self, key, *arguments, **options))

    monkeypatch.setattr(diskcache.Cache, "set", put_some)
    with pytest.raises(KeyboardInterrupt):
        cache.import_rows(rows)
    assert [row["key"] for row in cache.export_rows()] == [KEY]


def damage(folder: Path) -> None:
    (folder / "cache.db").write_bytes(b"no database at all " * 1000)
    for name in ("cache.db-wal", "cache.db-shm"):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("first", ["get", "put", "stats"])
def test_a_damaged_cache_is_set_aside(
    tmp_path: Path, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "answers"
    for number in (1, 2):
        with AnswerCache(folder) as cache:
            cache.put(KEY, "old")
        damage(folder)
        with AnswerCache(folder) as cache:
            match first:
                case "get":
                    assert cache.get(KEY) is None
                case "put":
                    cache.put(KEY, "new")
                    assert cache.get(KEY) == "new"
                case "stats":
                    assert cache.stats() == {}
            aside = tmp_path / f"answers.aside-{number}"
            assert capsys.readouterr().err == (
                f"warning: answer cache {folder} is damaged (file is not a database); "
                f"set aside as {aside}\n"
            )
            assert (aside / "cache.db").read_bytes().startswith(b"no database")
            cache.put(KEY, "new")
            assert cache.get(KEY) == "new"


def test_damage_in_the_middle_never_stops_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, keys = tmp_path / "answers", [make_key("exa", query=str(n)) for n in range(200)]
    with AnswerCache(folder) as cache:
        for key in keys:
            cache.put(key, "x" * 2000)
    database = folder / "cache.db"
    content = database.read_bytes()
    middle = len(content) // 4
    database.write_bytes(content[:middle] + b"\xff" * 2 * middle + content[3 * middle :])
    with AnswerCache(folder) as cache:
        cache.stats()
        assert len(list(cache.export_rows())) <= 200
        for key in keys:
            assert cache.get(key) in (None, "x" * 2000)
            cache.put(key, "new")
    with AnswerCache(folder) as cache:
        assert [cache.get(key) for key in keys] == ["new"] * 200
    assert "malformed" in capsys.readouterr().err


def test_damage_is_set_aside_by_one_of_those_who_see_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with AnswerCache(tmp_path / "answers") as first, AnswerCache(tmp_path / "answers") as second:
        first.put(KEY, "old")
        second.put(KEY, "old")
        damage(tmp_path / "answers")
        for cache in (first, second):
            cache.put(KEY, "new")
        # The second must not take the first one's new cache for the damaged one.
        assert first.get(KEY) == second.get(KEY) == "new"
    assert capsys.readouterr().err.count("set aside") == 1


@pytest.mark.parametrize("mark", ["rsearch answers 7\n", None])
def test_a_cache_of_another_version_is_set_aside(
    tmp_path: Path, mark: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "answers"
    with AnswerCache(folder) as cache:
        cache.put(KEY, "old")
    assert (folder / "format").read_text() == FORMAT
    if mark is None:
        (folder / "format").unlink()
    else:
        (folder / "format").write_text(mark)
    with AnswerCache(folder) as cache:
        assert cache.get(KEY) is None
        cache.put(KEY, "new")
    found = "unnamed" if mark is None else "'rsearch answers 7'"
    assert capsys.readouterr().err == (
        f"warning: answer cache {folder} is of another version ({found}, not 'rsearch answers 1'); "
        f"set aside as {folder}.aside-1\n"
    )
    with AnswerCache(folder) as cache:
        assert cache.get(KEY) == "new"


def test_a_file_in_the_place_of_the_folder_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "answers").write_text("a file")
    with AnswerCache(tmp_path / "answers") as cache:
        cache.put(KEY, 1)
        assert cache.get(KEY) == 1
    assert "is a file; set aside as" in capsys.readouterr().err
    assert (tmp_path / "answers.aside-1").read_text() == "a file"


def test_a_folder_that_cannot_be_used_costs_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file")
    cache = AnswerCache(blocked / "answers")
    assert cache.usable
    assert cache.put(KEY, (1, 2)).value == [1, 2]
    assert cache.get(KEY) is None
    assert cache.stats() == {}
    assert cache.size_bytes() == cache.clear() == cache.import_rows([]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: answer cache {blocked / 'answers'} cannot be used (")
    assert line.endswith("continuing without it")
    assert not cache.usable
    assert blocked.read_text() == "a file"


OPEN = """
import sys
from pathlib import Path
from rsearch_cli.services.cache import AnswerCache
sys.stdin.readline()
with AnswerCache(Path(sys.argv[1])) as cache:
    cache.put(sys.argv[2], sys.argv[2])
"""


def test_many_processes_open_a_new_cache_at_once(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    folder = tmp_path / "answers"
    processes = [start(OPEN, folder, f"key {n}") for n in range(6)]
    ends = [process.communicate("go\n", timeout=60)[1] for process in processes]
    assert ends == [""] * 6
    with AnswerCache(folder) as cache:
        assert [cache.get(f"key {n}") for n in range(6)] == [f"key {n}" for n in range(6)]
    assert [p.name for p in tmp_path.iterdir() if "aside" in p.name] == []
