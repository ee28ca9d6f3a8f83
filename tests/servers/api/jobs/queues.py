"""What tests of the API of jobs ask again and again."""

from typing import Any

from tests.support.api import Caller

BASE = "/v1/tenants/acme/jobs"
SEND = {"function": "send_email"}


async def enqueued(admin: Caller, *ids: str, **body: Any) -> None:
    """Enqueues acme's jobs of these ids."""
    for job_id in ids:
        answer = await admin.post(BASE, SEND | {"job_id": job_id} | body)
        assert answer.status_code == 202, answer.text


async def listed(admin: Caller, **params: Any) -> list[str]:
    """The ids of every page of acme's jobs, in order."""
    ids: list[str] = []
    cursor = None
    while True:
        paging: dict[str, str] = {} if cursor is None else {"cursor": cursor}
        answer = await admin.get(BASE, **params, **paging)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert set(page) == {"jobs", "next_cursor"}
        ids += [job["job_id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return ids
