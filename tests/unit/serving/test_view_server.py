"""The served viewer: data that grows, for this machine only."""

from __future__ import annotations

import pytest
from stored_rows import rollout

from rsearch_cli.runs.jsonl import append_rows
from rsearch_cli.serving.view_server import LiveData, build_view_app
from rsearch_cli.viewer.collection import Collection


@pytest.fixture
def open_client(tmp_path):
    """Opens a client of the app over folders."""
    from starlette.testclient import TestClient

    def open_(*folders, base_url="http://127.0.0.1:8001"):
        return TestClient(build_view_app(LiveData(Collection(folders))), base_url=base_url)

    return open_


def test_page_files_and_data_have_the_headers_that_confine_them(make_run, open_client):
    client = open_client(make_run([rollout()]))
    for path in ("/", "/static/base.css", "/data/index.json", "/data/part-0-0.json"):
        reply = client.get(path)
        assert reply.status_code == 200, path
        assert reply.headers["content-security-policy"].startswith("default-src 'none'; ")
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-cache"
    assert client.get("/data/index.json").json()["live"]


def test_rows_that_are_added_appear_and_others_are_not_sent_again(make_run, open_client):
    run = make_run([rollout()])
    client = open_client(run)
    first = client.get("/data/index.json")
    tag = {"If-None-Match": first.headers["etag"]}
    assert client.get("/data/index.json", headers=tag).status_code == 304
    append_rows(run / "trajectories.jsonl", [rollout(2)])
    second = client.get("/data/index.json", headers=tag)
    assert second.status_code == 200
    assert second.json()["sources"][0]["rows"]["columns"]["step"] == [1, 2]
    assert len(client.get("/data/part-0-0.json").json()) == 2
    (run / "summary.json").write_text('{"seconds": 3}')
    assert client.get("/data/index.json", headers=tag).json()["sources"][0]["finished"]


def test_what_is_not_there(make_run, open_client):
    client = open_client(make_run([rollout()]))
    client.get("/data/index.json")
    for path in ("/data/part-0-1.json", "/data/part-1-0.json", "/nothing", "/data/part-0--1.json"):
        assert client.get(path).status_code == 404, path
    assert client.get("/static/../../pyproject.toml").status_code == 404
    assert client.post("/data/index.json").status_code == 405


def test_rows_that_were_replaced_since_the_index_are_a_conflict(make_run, open_client):
    run = make_run([rollout()] * 3)
    client = open_client(run)
    client.get("/data/index.json")
    (run / "trajectories.jsonl").write_text("")
    assert client.get("/data/part-0-0.json").status_code == 409
    assert client.get("/data/index.json").json()["sources"][0]["generation"] == 1


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://evil.example:8001", {}),
        ("http://127.0.0.1.evil.example", {}),
        ("http://127.0.0.1:8001", {"Origin": "http://evil.example"}),
        ("http://127.0.0.1:8001", {"Origin": "null"}),
    ],
)
def test_pages_of_other_sites_get_nothing(make_run, open_client, url, headers):
    client = open_client(make_run([rollout()]), base_url=url)
    for path in ("/", "/data/index.json", "/static/base.css"):
        assert client.get(path, headers=headers).status_code == 403
