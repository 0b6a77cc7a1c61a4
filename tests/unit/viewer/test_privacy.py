"""Local paths and logins are taken out of texts; everything else stays."""

from __future__ import annotations

import pytest

from rsearch_cli.viewer.privacy import public_settings, public_value, without_paths


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ("/home/ada/models/seven-b", "seven-b"),
        ("~/questions.jsonl", "questions.jsonl"),
        (r"C:\Users\Ada\runs\one", "one"),
        ("C:/Users/Ada/runs/one", "one"),
        ("file:///home/ada/corpus.jsonl", "corpus.jsonl"),
        ("http://ada:pass@host:8000/v1", "http://host:8000/v1"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("builtin:nano", "builtin:nano"),
        ("lr 1e-5, 4/8 of it; and/or </think>", "lr 1e-5, 4/8 of it; and/or </think>"),
        (0.5, 0.5),
        (None, None),
        (["/home/ada/a", {"b": "/home/ada/c"}], ["a", {"b": "c"}]),
    ],
)
def test_values(given, public):
    assert public_value(given) == public


def test_paths_in_a_message():
    line = "cannot read /home/ada/x.json: No such file; see https://example.org/a/b and ~ada/y"
    expected = "cannot read x.json: No such file; see https://example.org/a/b and y"
    assert without_paths(line) == expected


def test_settings_are_flat_and_lack_the_output_folder():
    nested = {"output_dir": "/home/ada/runs", "a": {"b": {"c": 1}, "d": {}}, "e": [1]}
    assert public_settings(nested) == {"a.b.c": 1, "a.d": {}, "e": [1]}
