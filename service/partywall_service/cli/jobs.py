"""`partywall jobs`: what tenants have queued, running and finished."""

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from partywall_service.cli import jobs_change, jobs_top
from partywall_service.cli.options import (
    Format,
    FormatOption,
    JobArgument,
    JobStatus,
    JsonOption,
    QueueArgument,
    UrlOption,
    example,
    sidecar,
)

if TYPE_CHECKING:
    from rich.table import Table

    from partywall_service.cli.jobs_answers import Job

app = typer.Typer(
    no_args_is_help=True,
    help="Jobs: what tenants have queued, running and finished.",
    epilog=example("partywall jobs top", "partywall jobs list acme --status dead"),
)


@app.command("list", epilog=example("partywall jobs list acme --status dead --limit 20"))
def list_jobs(
    tenant: QueueArgument,
    status: Annotated[JobStatus | None, typer.Option(help="Of this status only.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many.")] = 50,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """List a tenant's jobs, newest first, the finished ones that are kept included."""
    from partywall_service.cli import output
    from partywall_service.cli.jobs_answers import Job
    from partywall_service.cli.jobs_table import jobs_table

    filters = {} if status is None else {"status": status.value}
    with sidecar(url) as api:
        found = api.list("jobs", "tenants", tenant, "jobs", filters=filters, at_most=limit + 1)
        answers = list(islice(found, limit + 1))
        jobs = [api.read_as(Job, one) for one in answers[:limit]]
    if as_json or form is Format.json:
        output.print_json({"jobs": answers[:limit], "next_cursor": None})
    else:
        output.print_wide(jobs_table(jobs, now=datetime.now(UTC)))
    if len(answers) > limit:
        output.note(f"there are older ones; --limit shows more than {limit:,}")


@app.command("show", epilog=example("partywall jobs show acme 1f0c9a"))
def show(
    tenant: QueueArgument,
    job_id: JobArgument,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show one job, with its result, or its error and where it was raised."""
    from partywall_service.cli import output
    from partywall_service.cli.jobs_answers import Job

    with sidecar(url) as api:
        answer = api.get("tenants", tenant, "jobs", job_id)
        job = api.read_as(Job, answer)
    if as_json or form is Format.json:
        output.print_json(answer)
        return
    console = output.stdout()
    console.print(_details(job))
    if job.traceback:
        console.print()
        # Line by line: what a job raised may hold anything, a terminal's commands too.
        for line in job.traceback.rstrip().splitlines():
            console.print(output.printable(line), markup=False, soft_wrap=True)


app.command("cancel", epilog=example("partywall jobs cancel acme 1f0c9a"))(jobs_change.cancel)
app.command("retry", epilog=example("partywall jobs retry acme 1f0c9a"))(jobs_change.retry)
app.command("pause", epilog=example("partywall jobs pause acme"))(jobs_change.pause)
app.command("resume", epilog=example("partywall jobs resume acme"))(jobs_change.resume)
app.command("purge", epilog=example("partywall jobs purge acme --yes"))(jobs_change.purge)
app.command("top", epilog=example("partywall jobs top --interval 5", "partywall jobs top --once"))(
    jobs_top.top
)


def _details(job: "Job") -> "Table":
    import json

    from partywall_service.cli import output

    rows: list[tuple[str, object]] = [
        ("job", job.job_id),
        ("tenant", job.tenant),
        ("function", job.function),
        ("status", job.status),
        ("priority", job.priority),
        ("tries", job.attempts),
    ]
    instants = {
        "queued": job.queued_at,
        "not before": job.run_at,
        "started": job.started_at,
        "finished": job.finished_at,
    }
    rows += [(name, f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else None) for name, at in instants.items()]
    if job.error:
        rows.append(("error", job.error))
    if job.result is not None:
        rows.append(("result", json.dumps(job.result, ensure_ascii=False)))
    return output.table(("", ""), rows)
