"""How often the server has run statements, where pg_stat_statements counts them; no lock stronger than ACCESS SHARE."""

from __future__ import annotations

import psycopg
from psycopg import sql

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.calls import Counts, canonical

__all__ = ["read_calls", "statistics_schema"]

_SCHEMA = """
SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_stat_statements'
"""
# What a session of another role counts is not shown; what its role or the database is told to is.
_OFF = """
SELECT coalesce((SELECT format('role %s', rolname) FROM pg_roles WHERE oid = setrole), 'the database')
FROM pg_db_role_setting, unnest(setconfig) AS setting
WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND lower(setting) IN ('pg_stat_statements.track=none', 'compute_query_id=off', 'compute_query_id=false')
LIMIT 1
"""
_CALLS = """
SELECT queryid, coalesce(r.rolname, s.userid::text), calls
FROM {schema}.pg_stat_statements(false) s LEFT JOIN pg_roles r ON r.oid = s.userid
WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
# The texts are in a file of their own, and many: they are asked for once.
_TEXTS = """
SELECT DISTINCT ON (queryid) queryid, query FROM {schema}.pg_stat_statements(true)
WHERE queryid = ANY(%s) AND query IS NOT NULL
  AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_INFO = "SELECT dealloc, stats_reset::text FROM {schema}.pg_stat_statements_info"


def statistics_schema(connection: Connection) -> sql.Identifier | None:
    """The schema that pg_stat_statements is in; None where it is not in this database."""
    row = connection.execute(_SCHEMA).fetchone()
    return None if row is None else sql.Identifier(row[0])


def read_calls(connection: Connection, watched: frozenset[str], forms: dict[int, str]) -> Counts | None:
    """Read the calls of watched statements.

    Args:
        connection: A session of ours; it may be inside a transaction.
        watched: Statements in canonical form.
        forms: Statements' ids to their texts' canonical forms; kept by the caller, as to make them is slow.

    Returns:
        The counts; None where the extension is not there.
    """
    schema = statistics_schema(connection)
    if schema is None:
        return None
    try:
        with connection.transaction():  # a refusal leaves the transaction around it alive
            info = connection.execute(sql.SQL(_INFO).format(schema=schema)).fetchone()
            found = connection.execute(sql.SQL(_CALLS).format(schema=schema)).fetchall()
            new = list({queryid for queryid, _, _ in found if queryid is not None and queryid not in forms})
            texts = connection.execute(sql.SQL(_TEXTS).format(schema=schema), (new,)).fetchall() if new else []
            blind = _blind(connection)
    except psycopg.errors.ObjectNotInPrerequisiteState:
        return Counts({}, blind="pg_stat_statements is not in shared_preload_libraries")
    except psycopg.errors.InsufficientPrivilege:
        return Counts({}, hidden=1)
    forms.update((queryid, canonical(text)) for queryid, text in texts)
    calls: dict[str, dict[str, int]] = {}
    hidden = 0
    for queryid, role, count in found:
        form = forms.get(queryid)
        if form is None:
            hidden += 1
        elif form in watched:
            of = calls.setdefault(form, {})
            of[role] = of.get(role, 0) + int(count)
    assert info is not None
    return Counts(calls, str(info[1]), int(info[0]), hidden, blind)


def _blind(connection: Connection) -> str:
    """Why the server may run statements and not count them."""
    row = connection.execute(
        "SELECT current_setting('pg_stat_statements.track', true), current_setting('compute_query_id', true)"
    ).fetchone()
    track, computed = row or (None, None)
    if track == "none" or computed == "off":
        return f"the server counts no calls (pg_stat_statements.track = {track}, compute_query_id = {computed})"
    off = connection.execute(_OFF).fetchone()
    return f"the calls of {off[0]} are not counted (pg_db_role_setting)" if off else ""
