"""Who is connected to the database, as our role is shown it: catalog and statistics views only, no lock on a table."""

from __future__ import annotations

from parallelchange.adapters.postgres.connection import APPLICATION, Connection
from parallelchange.sessions import Connected, Prepared, Session

__all__ = ["read_connected"]

# Autovacuum and the like work for no role. A role without pg_read_all_stats is shown the name, the role and the
# database of others' sessions, and neither kind nor address: those rows stay, as what they are cannot be told.
_SESSIONS = """
SELECT a.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, a.usesysid::text, ''),
  host(a.client_addr), coalesce(to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS'), ''), a.backend_type,
  coalesce(a.state, ''),
  a.pid = pg_backend_pid() OR (a.application_name = %s AND a.usesysid = me.usesysid)
FROM pg_stat_activity a, (SELECT usesysid FROM pg_stat_activity WHERE pid = pg_backend_pid()) me
WHERE a.datname = current_database() AND a.leader_pid IS NULL
  AND (a.usesysid IS NOT NULL OR a.backend_type = 'client backend')
ORDER BY a.pid
"""
_PREPARED = """
SELECT gid, owner::text, extract(epoch FROM clock_timestamp() - prepared)::float8
FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared
"""
_REPLAYS = """
SELECT format('logical slot %I%s', slot_name, CASE WHEN active THEN '' ELSE ' (nobody reads it now)' END)
FROM pg_replication_slots WHERE database = current_database() AND slot_type = 'logical'
UNION ALL
SELECT format('subscription %I', subname) FROM pg_subscription
WHERE subenabled AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def read_connected(connection: Connection) -> Connected:
    """Look at who is connected now.

    Args:
        connection: A session of ours; it may be inside a transaction.
    """
    # Inside a transaction the server shows the sessions as they were at the first look.
    connection.execute("SELECT pg_stat_clear_snapshot()")
    sessions = tuple(Session(*row) for row in connection.execute(_SESSIONS, (APPLICATION,)))
    prepared = tuple(Prepared(*row) for row in connection.execute(_PREPARED))
    replays = tuple(str(row[0]) for row in connection.execute(_REPLAYS))
    return Connected(sessions, prepared, replays)
