"""`python -m partywall_workers module.Settings`, where only the `workers` extra is installed."""

import argparse
import logging
import sys
from collections.abc import Sequence

from partywall_workers.command import run, worker_of
from partywall_workers.loading import CannotRun, load_settings
from partywall_workers.logs import JobContextFilter

FORMAT = "%(asctime)s %(levelname)s %(name)s tenant=%(tenant)s job_id=%(job_id)s %(message)s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a worker until SIGTERM or SIGINT; its exit code."""
    told = _parser().parse_args(arguments)
    handler = logging.StreamHandler()
    handler.addFilter(JobContextFilter())
    logging.basicConfig(level=logging.INFO, format=FORMAT, handlers=[handler])
    options: dict[str, object] = {"burst": True} if told.burst else {}
    if told.queue:
        options["lanes"] = tuple(told.queue)
    try:
        settings = load_settings(told.settings)
        run(lambda: worker_of(settings, **options))
    except CannotRun as exc:
        print(exc, file=sys.stderr)  # noqa: T201 - this is a command
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m partywall_workers",
        description="Run jobs, each tenant's in its turn, until Ctrl-C.",
        epilog="Example: python -m partywall_workers myapp.jobs.Settings --queue dedicated",
    )
    parser.add_argument(
        "settings",
        metavar="module.Settings",
        help="a class derived from FairWorkerSettings, or one of arq's",
    )
    parser.add_argument(
        "--queue",
        metavar="NAME",
        action="append",
        help="a queue to serve, instead of those that the class names; repeat it for several",
    )
    parser.add_argument(
        "--burst", action="store_true", help="end when there is nothing left to run"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
