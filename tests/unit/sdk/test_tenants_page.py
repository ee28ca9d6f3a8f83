"""docs/tenants.md: its snippets run as they stand there."""

import re
from pathlib import Path
from typing import Any

import pytest

from partywall.context import Tenant, running_as
from partywall.errors import InvalidCredentials
from tests.unit.sdk.scopes import scope
from tests.unit.sdk.tokens import SECRET, pem, rsa_key

PAGE = Path(__file__).parents[3] / "docs" / "tenants.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


async def tenant_of_key(key: str) -> str | None:
    return {"k1": "acme"}.get(key)


async def test_the_pages_snippets_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {
        "TOKEN": "a-host-token",
        "JWT_SECRET": SECRET,
        "PUBLIC_KEY_PEM": pem(rsa_key()),
        "tenant_of_key": tenant_of_key,
    }
    for snippet in SNIPPETS:
        exec(compile(snippet, str(PAGE), "exec"), names)
    assert capsys.readouterr().out == "page 2 for acme\n"
    with running_as(Tenant("acme")):
        assert await names["whoami"]() == "acme"
        assert await names["report"]() == "page 1 for acme"
    names["pool"].shutdown()
    assert await names["by_api_key"](scope()) is None
    assert await names["by_api_key"](scope(x_api_key="k1")) == "acme"
    with pytest.raises(InvalidCredentials):
        await names["by_api_key"](scope(x_api_key="k2"))
