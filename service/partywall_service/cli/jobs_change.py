"""`partywall jobs cancel`, `retry`, `pause`, `resume` and `purge`."""

import sys
from typing import Annotated, Any

import typer

from partywall_service.cli.errors import CliError, UsageError
from partywall_service.cli.options import (
    Format,
    FormatOption,
    JobArgument,
    JsonOption,
    TenantArgument,
    UrlOption,
    sidecar,
)


def cancel(
    tenant: TenantArgument,
    job_id: JobArgument,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Cancel a job: one that waits at once, one that runs by way of its worker."""
    from partywall_service.cli import output
    from partywall_service.cli.client import Unanswered
    from partywall_service.cli.jobs_answers import Job

    with sidecar(url) as api:
        try:
            answer = api.delete("tenants", tenant, "jobs", job_id)
        except Unanswered as exc:
            raise _perhaps(exc, tenant, job_id) from exc
        job = api.read_as(Job, answer)
    if as_json or form is Format.json:
        output.print_json(answer)
        return
    if job.status == "cancelled":
        output.note(f"job {job_id} of {tenant} is cancelled")
        return
    output.note(
        f"job {job_id} of {tenant} is asked to end, and still {output.printable(job.status)}; "
        f"`partywall jobs show {tenant} {job_id}` tells what came of it"
    )


def retry(
    tenant: TenantArgument,
    job_id: JobArgument,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Revive a dead job: it is queued again, with all of its tries."""
    from partywall_service.cli import output
    from partywall_service.cli.client import Unanswered
    from partywall_service.cli.jobs_answers import Job

    with sidecar(url) as api:
        try:
            answer = api.post("tenants", tenant, "jobs", job_id, "retry", body={})
        except Unanswered as exc:
            raise _perhaps(exc, tenant, job_id) from exc
        job = api.read_as(Job, answer)
    if as_json or form is Format.json:
        output.print_json(answer)
        return
    output.note(f"job {job_id} of {tenant} is {output.printable(job.status)} again")


def pause(
    tenant: TenantArgument,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Start no more of a tenant's jobs; those that run go on, and more may be queued."""
    _switch(
        "pause",
        tenant,
        url,
        as_json or form is Format.json,
        f"{tenant} is paused; `partywall jobs resume {tenant}` goes on with its jobs",
    )


def resume(
    tenant: TenantArgument,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Go on with a paused tenant's jobs. No error if it is not paused."""
    _switch("resume", tenant, url, as_json or form is Format.json, f"{tenant} is not paused")


def purge(
    tenant: TenantArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Cancel every job of a tenant that waits or is deferred; those that run go on."""
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError("expected --yes, as there is no terminal to ask on")
        typer.confirm(f"Cancel every waiting job of {tenant}?", abort=True, err=True)
    _switch("purge", tenant, url, as_json or form is Format.json, "")


def _switch(verb: str, tenant: str, url: str | None, as_json: bool, said: str) -> None:
    from partywall_service.cli import output
    from partywall_service.cli.jobs_answers import Switched

    with sidecar(url) as api:
        answer: dict[str, Any] = api.post("tenants", tenant, "jobs", verb, body={})
        switched = api.read_as(Switched, answer)
    if as_json:
        output.print_json(answer)
        return
    output.note(said or f"{switched.purged:,} waiting jobs of {tenant} are cancelled")


def _perhaps(exc: CliError, tenant: str, job_id: str) -> CliError:
    return CliError(f"{exc}; it may have been done: `partywall jobs show {tenant} {job_id}` tells")
