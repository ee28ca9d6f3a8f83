"""Schemathesis over the OpenAPI document of a running sidecar.

No 500, no undocumented status, every answer as its schema says, every invalid request refused,
every operation behind its token; also along chains of calls (make a token, then revoke it).
"""

import asyncio
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import SidecarFactory
from tests.support.sidecar import Sidecar

pytestmark = pytest.mark.timeout(3600)  # the soak's; a short run takes half a minute

EXAMPLES = 6
SOAK_EXAMPLES = 1000

# A body may be valid by its schema and still name a tier or a limit that the policy has not.
NOT_PROMISED = ("positive_data_acceptance",)

# It answers any method, so that gateways may pass on their clients'.
ANY_METHOD = "/v1/authz"


async def test_the_api_is_what_its_document_says(
    sidecar: SidecarFactory, soak: bool, tmp_path: Path
) -> None:
    one = sidecar()
    run = ["--exclude-checks", ",".join(NOT_PROMISED)]
    code, report = await schemathesis(
        one, *run, "--exclude-path", ANY_METHOD, soak=soak, home=tmp_path
    )
    assert code == 0, report
    async with one.client() as client:
        document = (await client.get("/openapi.json")).json()
        assert (await client.get("/v1/tenants")).status_code == 200  # and it is well
    operations = sum(map(len, document["paths"].values())) - 1
    assert f"Tested: {operations}\n" in report, report


async def test_so_is_the_endpoint_for_gateways(
    sidecar: SidecarFactory, soak: bool, tmp_path: Path
) -> None:
    # It speaks in headers, and HTTP asks that unknown ones be let through.
    not_promised = (*NOT_PROMISED, "unsupported_method", "negative_data_rejection")
    run = ["--exclude-checks", ",".join(not_promised)]
    code, report = await schemathesis(
        sidecar(), *run, "--include-path", ANY_METHOD, soak=soak, home=tmp_path
    )
    assert code == 0, report


def test_the_document_has_every_endpoint(sidecar: SidecarFactory) -> None:
    one = sidecar()
    paths = httpx.get(f"{one.url}/openapi.json").json()["paths"]
    assert paths.keys() >= {
        "/v1/check",
        "/v1/checks",
        "/v1/permits",
        "/v1/usage",
        "/v1/authz",
        "/v1/tenants",
        "/v1/tenants/import",
        "/v1/tenants/{tenant}",
        "/v1/tenants/{tenant}/export",
        "/v1/tenants/{tenant}/overrides",
        "/v1/tenants/{tenant}/overrides/{kind}/{name}",
        "/v1/tenants/{tenant}/quotas",
        "/v1/tenants/{tenant}/quotas/{resource}",
        "/v1/tenants/{tenant}/quotas/consume",
        "/v1/tenants/{tenant}/quotas/release",
        "/v1/tenants/{tenant}/quotas/reserve",
        "/v1/tenants/{tenant}/quotas/reservations/{reservation}/commit",
        "/v1/tenants/{tenant}/quotas/reservations/{reservation}/cancel",
        "/v1/tenants/{tenant}/ledger",
        "/v1/tenants/{tenant}/preview",
        "/v1/tenants/{tenant}/jobs",
        "/v1/tenants/{tenant}/jobs/{job_id}",
        "/v1/tenants/{tenant}/jobs/{job_id}/retry",
        "/v1/tenants/{tenant}/jobs/pause",
        "/v1/tenants/{tenant}/jobs/resume",
        "/v1/tenants/{tenant}/jobs/purge",
        "/v1/queues",
        "/v1/tokens",
        "/v1/tokens/{token}",
        "/v1/tenants/{tenant}/usage",
        "/v1/reports/usage",
        "/v1/reports/neighbors",
        "/v1/notices",
        "/v1/audit",
        "/healthz",
        "/readyz",
        "/metrics",
    }


async def schemathesis(
    one: Sidecar, *arguments: str, soak: bool, home: Path
) -> tuple[int | None, str]:
    """Its exit code and report; as a process, because its command line is what it promises."""
    # The same requests each time in `make test`, others in each soak.
    if soak:
        amount = ["--max-examples", str(SOAK_EXAMPLES), "--generation-database", "none"]
    else:
        amount = ["--max-examples", str(EXAMPLES), "--generation-deterministic"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{one.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {one.admin_token}"),
        *("--no-color", "--request-timeout", "30"),
        *amount,
        *arguments,
        cwd=home,  # so that nothing of its configuration or of ours is in its way
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()
