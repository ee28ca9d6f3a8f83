"""What `pip install partywall` alone brings is enough for a host app."""

import json
import os
import subprocess
import venv
from pathlib import Path

import httpx
import pytest

from tests.acceptance.asking import fresh_tenant
from tests.support.run import TestRun
from tests.support.sidecar import Sidecar

ROOT = Path(__file__).parents[2]
PIP_SECONDS = 600

APP = """
import asyncio
import json
import sys

import httpx

from partywall import ConfigurationError, PartywallMiddleware, current_tenant
from partywall.tenants import FromHeader, FromJWT


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    body = str(current_tenant()).encode()
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(app):
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    async def send(message):
        pass

    await app({"type": "lifespan"}, receive, send)


async def main():
    governed = PartywallMiddleware(app, tenant=FromHeader("X-Tenant-ID"), deadline=30.0)
    transport = httpx.ASGITransport(governed)
    found = []
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        for _ in range(6):
            answer = await client.get("/", headers={"X-Tenant-ID": sys.argv[1]})
            found.append([answer.status_code, answer.headers["ratelimit"].split(";")[1]])
    await lifespan(governed)
    return found


found = {"answers": asyncio.run(main()), "errors": []}
try:
    FromJWT(key="a secret that is long enough for HS256")
except ConfigurationError as exc:
    found["errors"].append(str(exc))
try:
    import partywall.fastapi
except ImportError as exc:
    found["errors"].append(str(exc))
found["modules"] = sorted(
    {name.partition(".")[0] for name in sys.modules} & {"fastapi", "starlette", "redis", "jwt"}
)
print(json.dumps(found))
"""


@pytest.fixture(scope="session")
def base_python(test_run: TestRun) -> Path:
    """The Python of a new environment with the base install in it, and nothing else."""
    directory = test_run.fresh_dir("base")
    venv.create(directory, with_pip=True)
    python = directory / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "-c", "constraints.txt", ".", cwd=ROOT)
    return python


def run(python: Path, *arguments: str, cwd: Path, **env: str) -> str:
    """What it printed; it must succeed."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, *arguments],
        cwd=cwd,
        env={**inherited, **env},
        capture_output=True,
        text=True,
        timeout=PIP_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(PIP_SECONDS)
def test_the_base_install_governs_an_app(base_python: Path, asked_sidecar: Sidecar) -> None:
    env = {"PARTYWALL_SIDECAR_URL": asked_sidecar.url, "PARTYWALL_TOKEN": asked_sidecar.admin_token}
    acme = fresh_tenant()
    headers = {"Authorization": f"Bearer {asked_sidecar.admin_token}"}
    where = f"{asked_sidecar.url}/v1/tenants/{acme}"
    assert httpx.put(where, json={"tier": "free"}, headers=headers, timeout=30).is_success
    said = run(base_python, "-c", APP, acme, cwd=base_python.parent, **env)
    found = json.loads(said)
    assert found["answers"] == [[200, f"r={left}"] for left in range(4, -1, -1)] + [[429, "r=0"]]
    assert found["errors"] == [
        "FromJWT needs PyJWT: pip install 'partywall[jwt]'",
        "partywall.fastapi needs FastAPI: pip install 'partywall[fastapi]'",
    ]
    assert found["modules"] == []
