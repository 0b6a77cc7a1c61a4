from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rsearch_cli.errors import BudgetExceeded
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.runs.files import SPEND
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.cache import make_key
from rsearch_cli.services.outcomes import Reply, TransientFailure
from rsearch_cli.services.runtime import JUDGE, LOCAL, open_services

OVERRIDES = (
    "budget.max_usd=0.3",
    "cache.mode=refresh",
    "search.service.retries=0",
    "reward.judge.service.retries=1",
    "reward.judge.service.max_backoff_seconds=0.0",
)


class Busy:
    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> Reply:
        self.count += 1
        raise TransientFailure("busy")


def test_services_follow_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", OVERRIDES).recipe
    with open_services(recipe, tmp_path / "run", tmp_path / "answers") as services:
        assert services.cache.folder == tmp_path / "answers"
        assert services.cache.mode == "refresh"
        assert services.client("exa") is services.client("exa")
        for name, attempts in (("exa", 1), (JUDGE, 2), ("", 1)):
            busy = Busy()
            with pytest.raises(Exception, match="busy"):
                asyncio.run(services.client(name).fetch(make_key(name), busy))
            assert busy.count == attempts
        with pytest.raises(BudgetExceeded, match=r"budget\.max_usd \$0\.3000"):
            services.budget.reserve("exa", 0.4)
        assert set(services.budget.snapshot().services) == {"exa", JUDGE, LOCAL}
    with Budget(tmp_path / "run") as budget:
        assert budget.snapshot().total.calls == 4


def test_opening_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    with open_services(load_recipe("quickstart").recipe, tmp_path / "run") as services:
        services.client("exa")
        assert services.cache.folder == tmp_path / "cache" / "answers"
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path / "run" / SPEND).exists()
