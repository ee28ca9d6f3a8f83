"""Usage of one tenant as PostgreSQL has it, in one statement and so in one snapshot.

A step that is open, because it is pending or Redis has some of it, comes from the finer table; each
open step asks its own partitions, and the period is told again so that only its own are planned
for. `:fresh` are whole hours; `:minutes_from` is the name of a row of `usage_state`: what Redis has
of hours before it will not be taken, so their sums stand.
"""

from sqlalchemy import TextClause, text

from partywall_service.usage.spans import Step

_MINUTES = text("""
    SELECT start, meter, value FROM usage_minutes
    WHERE tenant = :tenant AND start >= :start AND start < :end
    ORDER BY start, meter
""")

_OPEN_HOURS = """open_hours AS MATERIALIZED (
        SELECT start FROM usage_pending WHERE step = 'hour' AND start >= :start AND start < :end
        UNION
        SELECT start FROM unnest(CAST(:fresh AS timestamptz[])) AS fresh (start)
        WHERE start >= :start AND start < :end AND start >= coalesce((
            SELECT CAST(value AS timestamptz) FROM usage_state WHERE name = :minutes_from
        ), '-infinity')
    )"""

_MINUTES_OF_OPEN_HOURS = """SELECT minute.start, meter, value FROM open_hours CROSS JOIN LATERAL (
        SELECT start, meter, value FROM usage_minutes
        WHERE tenant = :tenant AND start >= :start AND start < :end
            AND start >= open_hours.start AND start < open_hours.start + interval '1 hour'
        OFFSET 0
    ) AS minute"""

_HOURS = text(f"""
    WITH {_OPEN_HOURS}
    SELECT start, meter, value FROM usage_hours
    WHERE tenant = :tenant AND start >= :start AND start < :end
        AND start NOT IN (SELECT start FROM open_hours)
    UNION ALL
    {_MINUTES_OF_OPEN_HOURS}
    ORDER BY start, meter
""")  # noqa: S608 - of the texts above, and nothing else

_DAYS = text(f"""
    WITH {_OPEN_HOURS}, open_days AS MATERIALIZED (
        SELECT start FROM usage_pending WHERE step = 'day' AND start >= :start AND start < :end
        UNION
        SELECT date_trunc('day', start, 'UTC') FROM open_hours
    )
    SELECT start, meter, value FROM usage_days
    WHERE tenant = :tenant AND start >= :start AND start < :end
        AND start NOT IN (SELECT start FROM open_days)
    UNION ALL
    SELECT hour.start, meter, value FROM open_days CROSS JOIN LATERAL (
        SELECT start, meter, value FROM usage_hours
        WHERE tenant = :tenant AND start >= :start AND start < :end
            AND start >= open_days.start AND start < open_days.start + interval '24 hours'
            AND start NOT IN (SELECT start FROM open_hours)
        OFFSET 0
    ) AS hour
    UNION ALL
    {_MINUTES_OF_OPEN_HOURS}
    ORDER BY start, meter
""")  # noqa: S608 - of the texts above, and nothing else

POINTS: dict[Step, TextClause] = {"minute": _MINUTES, "hour": _HOURS, "day": _DAYS}
