"""Whether the database and our role in it are as the plan needs them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parallelchange.adapters.postgres.connection import Connection, connect, describe_url
from parallelchange.adapters.postgres.sessions import read_connected
from parallelchange.checks import Check, Section
from parallelchange.errors import Unavailable
from parallelchange.gates import Act, versions
from parallelchange.model import Severity, Verdict
from parallelchange.plan import Plan

__all__ = ["check_database"]

_SECTION = Section("database")
_SKEW = 5.0
"""Seconds by which our clock may differ from the server's."""


@dataclass(frozen=True)
class _Asked:
    """A check that one query answers: a boolean, and a text of what was found."""

    key: str
    what: str
    sql: str
    remedy: str
    warning: bool = False


_SERVER = (
    _Asked(
        "version",
        "the server is PostgreSQL 14 or newer",
        "SELECT current_setting('server_version_num')::int >= 140000, current_setting('server_version')",
        "upgrade it: older ones are no longer maintained",
    ),
    _Asked(
        "primary",
        "the server takes writes",
        "SELECT NOT pg_is_in_recovery() AND NOT current_setting('default_transaction_read_only')::boolean,"
        " CASE WHEN pg_is_in_recovery() THEN 'it is a standby'"
        " WHEN current_setting('default_transaction_read_only')::boolean THEN 'default_transaction_read_only is on'"
        " ELSE '' END",
        "connect to the primary, with a role and a database that may write",
    ),
    _Asked(
        "activity",
        "sessions are shown (track_activities)",
        "SELECT current_setting('track_activities')::bool, ''",
        "set track_activities = on: without it nobody can tell whether the old version is gone",
    ),
    _Asked(
        "stats",
        "our role sees whose sessions are open",
        "SELECT pg_has_role('pg_read_all_stats', 'USAGE'), 'role ' || current_user",
        "GRANT pg_read_all_stats TO our role; else whoever is neither version cannot be told from a background worker",
        warning=True,
    ),
    _Asked(
        "ledger",
        "our role may keep the ledger",
        "SELECT CASE WHEN to_regnamespace('parallelchange') IS NULL"
        " THEN has_database_privilege(current_database(), 'CREATE')"
        " ELSE has_schema_privilege('parallelchange', 'USAGE') END,"
        " CASE WHEN to_regnamespace('parallelchange') IS NULL THEN 'it is not there yet' ELSE '' END",
        "GRANT CREATE ON DATABASE to our role, once",
    ),
    _Asked(
        "extensions",
        "pg_stat_statements is there: to record from, and to see that the old version's statements stand still",
        "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements'), 'no phase needs an extension'",
        "CREATE EXTENSION pg_stat_statements; without it a statement that comes through a pooler is not seen",
        warning=True,
    ),
)

_TABLE = (
    _Asked(
        "owner",
        "our role owns {table}",
        "SELECT pg_has_role(relowner, 'USAGE'), 'its owner is ' || pg_get_userbyid(relowner)"
        " FROM pg_class WHERE oid = %s",
        "run as the owner, or GRANT the owner's role to ours: only an owner may add columns and triggers",
    ),
    _Asked(
        "create",
        "our role may make the trigger's function in the schema of {table}",
        "SELECT has_schema_privilege(relnamespace, 'CREATE'), 'schema ' || relnamespace::regnamespace"
        " FROM pg_class WHERE oid = %s",
        "GRANT CREATE ON SCHEMA to our role",
    ),
    _Asked(
        "rows",
        "no row security hides rows of {table} from us",
        "SELECT NOT relrowsecurity OR (NOT relforcerowsecurity AND pg_has_role(relowner, 'USAGE'))"
        " OR (SELECT rolbypassrls OR rolsuper FROM pg_roles WHERE rolname = current_user), ''"
        " FROM pg_class WHERE oid = %s",
        "ALTER ROLE … BYPASSRLS: laws must be held against every row",
    ),
    _Asked(
        "replication",
        "no subscription writes into {table}",
        "SELECT NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = oid), '' FROM pg_class WHERE oid = %s",
        "rows that logical replication applies pass our trigger by: ALTER TABLE … ENABLE ALWAYS TRIGGER after expand",
        warning=True,
    ),
)


_OID = "SELECT to_regclass(format('%%I.%%I', %s::text, %s::text))::oid"


def check_database(url: str, plan: Plan | None) -> Iterator[Check]:
    """Look at the server, at our role, and at the tables of a plan.

    Args:
        url: libpq URL.
        plan: The plan; None to look at the server only.
    """
    try:
        connection = connect(url)
    except Unavailable as error:
        yield _SECTION.told(
            "answers", "the database answers", holds=False, detail=error.message, remedy=error.hint or ""
        )
        return
    with connection:
        yield _SECTION.told("answers", "the database answers", holds=True, detail=describe_url(url))
        for asked in _SERVER:
            yield _ask(connection, asked)
        yield _clock(connection)
        if plan is not None:
            yield _clients(connection, plan)
        for table in plan.tables if plan else ():
            row = connection.execute(_OID, (table.schema, table.name))
            oid = (row.fetchone() or (None,))[0]
            there = _SECTION.told(
                "table",
                f"{table} is there",
                holds=oid is not None,
                remedy="name the right database, or migrate it first",
            )
            yield there
            for asked in _TABLE if oid is not None else ():
                yield _ask(connection, asked, oid, table=str(table))


def _clients(connection: Connection, plan: Plan) -> Check:
    """Who is connected now, as gate `versions` would judge it."""
    change = plan.change
    fact = versions.VersionsFact(*change.identities, change.clients, read_connected(connection), ())
    result = versions.judge(fact, Act.SET_WEIGHT)
    wrong = [finding for finding in result.findings if finding.severity is Severity.ERROR]
    return _SECTION.told(
        "clients",
        "every session is a version's or is allowed",
        holds=result.verdict is Verdict.PASS,
        detail="; ".join(finding.message for finding in wrong),
        remedy=wrong[0].remedy if wrong else "",
        warning=True,
    )


def _ask(connection: Connection, asked: _Asked, *values: Any, table: str = "") -> Check:
    row = connection.execute(asked.sql, values or None).fetchone()
    holds, detail = (bool(row[0]), str(row[1] or "")) if row else (None, "it cannot be told")
    what = asked.what.format(table=table)
    return _SECTION.told(asked.key, what, holds=holds, detail=detail, remedy=asked.remedy, warning=asked.warning)


def _clock(connection: Connection) -> Check:
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    skew = abs(time.time() - float(row[0])) if row else None
    return _SECTION.told(
        "clock",
        "its clock agrees with ours",
        holds=None if skew is None else skew <= _SKEW,
        detail="" if skew is None else f"{skew:.1f} s apart",
        remedy="run a time service on both: soak and drain times are told by the database's clock, figures by others",
        warning=True,
    )
