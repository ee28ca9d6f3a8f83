"""`python -m benchmarks [NAME ...]`: measures, prints a Markdown table, writes results.json."""

import sys

import uvloop

from benchmarks import (
    cache,
    check,
    checks,
    growth,
    jobs,
    memory,
    metering,
    middleware,
    pages,
    quotas,
    report,
    rollup,
    setup,
    tenants,
)

MEASUREMENTS = {
    "cache": cache,
    "check": check,
    "checks": checks,
    "growth": growth,
    "jobs": jobs,
    "memory": memory,
    "metering": metering,
    "middleware": middleware,
    "pages": pages,
    "quotas": quotas,
    "rollup": rollup,
    "tenants": tenants,
}


def main() -> int:
    """Runs the named measurements, or all; 1 when a ratio is not as wanted."""
    names = sys.argv[1:] or list(MEASUREMENTS)
    unknown = set(names) - set(MEASUREMENTS)
    if unknown:
        print(f"expected some of {', '.join(MEASUREMENTS)}; got {', '.join(unknown)}")
        return 2
    rows: list[report.Row] = []
    with setup.stores() as stores:
        for name in names:
            print(f"measuring {name} …", file=sys.stderr)
            rows += uvloop.run(MEASUREMENTS[name].run(stores))
    print(report.table(rows))
    if names == list(MEASUREMENTS):
        report.write(rows)
    return 1 if any(row.held is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
