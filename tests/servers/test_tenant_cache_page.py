"""docs/cache.md: its snippets run as they stand there."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import partywall
from partywall.cache import CacheFull

PAGE = Path(__file__).parents[2] / "docs" / "cache.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


class Sidecar:
    """What `Partywall` is here: one quota for everybody."""

    async def quotas(self, _tenant: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(resource="cache_keys", limit=100)]


async def test_the_pages_snippets_run(
    own_valkey, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(partywall, "Partywall", Sidecar)
    names: dict[str, Any] = {"REDIS_URL": own_valkey.url}
    for snippet in SNIPPETS:
        exec(compile(snippet, str(PAGE), "exec"), names)
    try:
        await names["main"]()
        assert capsys.readouterr().out == "42 Usage(keys=1, limit=100)\nNone\n"
        assert await names["redis"].dbsize() == 0
        for key in ("a", "b"):
            await names["cache_of_two"].set(key, "1", ttl=60, tenant="acme")
        with pytest.raises(CacheFull):
            await names["cache_of_two"].set("c", "1", ttl=60, tenant="acme")
    finally:
        await names["redis"].aclose()
