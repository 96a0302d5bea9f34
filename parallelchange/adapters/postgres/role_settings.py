"""What ALTER ROLE and ALTER DATABASE have set for a role's sessions."""

from __future__ import annotations

from parallelchange.adapters.postgres.connection import Connection

__all__ = ["role_settings"]

# What is set for a role in a database goes before what is set for the role, then the database, then all.
_SETTINGS = """
SELECT split_part(entry, '=', 1), substr(entry, strpos(entry, '=') + 1)
FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) entry
WHERE (r.rolname = %s OR (s.setrole = 0 AND %s))
  AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY s.setrole <> 0, s.setdatabase <> 0
"""


def role_settings(connection: Connection, role: str, *, its_own: bool = False) -> dict[str, str]:
    """Values of the settings with which the role's sessions on this database begin.

    Args:
        connection: A session on the database.
        role: The role.
        its_own: Whether to leave out what is set for the database, or for all, and not for the role.
    """
    return dict(connection.execute(_SETTINGS, (role, not its_own)).fetchall())
