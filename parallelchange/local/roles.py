"""What a database is surrounded by on its server: roles, its own privileges, and settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import psycopg
from psycopg import sql

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.errors import Unavailable
from parallelchange.local.scratch import ROLE_NOTE

__all__ = ["check_roles", "copy_roles", "copy_settings", "is_superuser", "own_database"]

_MEMBERS = """
SELECT g.rolname, m.rolname, a.admin_option, coalesce((to_jsonb(a)->>'inherit_option')::boolean, m.rolinherit),
  coalesce((to_jsonb(a)->>'set_option')::boolean, true)
FROM pg_auth_members a JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles m ON m.oid = a.member ORDER BY 1, 2
"""

_POWERS = """
SELECT r.rolsuper, r.rolbypassrls, ARRAY(
  SELECT g.rolname::text FROM pg_roles g
  WHERE g.oid <> r.oid AND NOT r.rolsuper AND pg_has_role(r.oid, g.oid, 'MEMBER'))
FROM pg_roles r WHERE r.rolname = %s
"""

_DATABASE = """
SELECT pg_get_userbyid(d.datdba), CASE a.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END,
  a.privilege_type, a.is_grantable
FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
WHERE d.datname = current_database() AND a.grantee <> d.datdba
"""

# The general ones first, since the particular ones win over them on a server.
_SETTINGS = """
SELECT r.rolname, split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c LEFT JOIN pg_roles r ON r.oid = s.setrole
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND (s.setrole = 0 OR r.rolname IS NOT NULL)
ORDER BY s.setdatabase <> 0, r.rolname NULLS FIRST, 2
"""
_LISTS = frozenset({"search_path", "temp_tablespaces"})
"""Settings whose value is a list of names in quotes; of the others, as text, PostgreSQL keeps what was written."""
_NOT_OF_THE_COPY = re.compile(r"log_.*|.*preload_libraries|role")


def copy_roles(there: Connection, here: Connection, tell: Callable[[str], None]) -> None:
    """Make the roles that are missing, by name: without password or log-in, and never as superusers.

    Raises:
        Unavailable: We may not make them there.
    """
    try:
        made = _make_roles(there, here)
        known = {str(row[0]) for row in here.execute("SELECT rolname FROM pg_roles")}
        for group, member, admin, inherit, set_ in there.execute(_MEMBERS).fetchall():
            # A role that was there before is somebody else's: it is given nothing.
            if member in made and group in known:
                _grant(here, group, member, admin=admin, inherit=inherit, set_=set_)
            elif member in made:
                tell(f"warning: the rehearsal server has no role {group}, which {member} is a member of")
    except psycopg.Error as error:
        raise Unavailable(
            f"the roles of the shared database cannot be made for the rehearsal copy: {error.diag.message_primary}",
            hint="the role to rehearse as needs CREATEROLE, and BYPASSRLS where roles of the source have it",
        ) from None


def _make_roles(there: Connection, here: Connection) -> set[str]:
    known = {str(row[0]) for row in here.execute("SELECT rolname FROM pg_roles")}
    wanted = there.execute("SELECT rolname, rolinherit, rolbypassrls FROM pg_roles WHERE rolname !~ '^pg_'").fetchall()
    made = set()
    for role, inherit, bypass in wanted:
        if role in known:
            continue
        options = sql.SQL("NOLOGIN {} {}").format(
            sql.SQL("INHERIT" if inherit else "NOINHERIT"), sql.SQL("BYPASSRLS" if bypass else "NOBYPASSRLS")
        )
        with here.transaction():
            here.execute(sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(role), options))
            here.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(role), sql.Literal(ROLE_NOTE)))
            if not is_superuser(here):
                here.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(role)))
        made.add(str(role))
    return made


def _grant(here: Connection, group: str, member: str, *, admin: bool, inherit: bool, set_: bool) -> None:
    grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(member))
    if here.info.server_version >= 160000:  # noqa: PLR2004 - where a membership has options of its own
        flags = (sql.SQL("TRUE" if on else "FALSE") for on in (admin, inherit, set_))
        grant = sql.SQL("{} WITH ADMIN {}, INHERIT {}, SET {}").format(grant, *flags)
    elif admin:
        grant = sql.SQL("{} WITH ADMIN OPTION").format(grant)
    here.execute(grant)


def check_roles(there: Connection, here: Connection, roles: Collection[str]) -> None:
    """See that no version's role may do more on the copy's server than on the source's.

    Raises:
        Unavailable: One may: what passes on the copy would prove nothing.
    """
    for role in sorted(roles):
        source, copy = (side.execute(_POWERS, (role,)).fetchone() for side in (there, here))
        if source is None or copy is None:
            raise Unavailable(
                f"there is no role {role} on the shared server", hint="`role` of a version names its database role"
            )
        more = [name for name, mine, theirs in (("superuser", copy[0], source[0]), ("BYPASSRLS", copy[1], source[1]))
                if mine and not theirs]  # fmt: skip
        if not source[0]:
            more += sorted(set(copy[2]) - set(source[2]))
        if more:
            raise Unavailable(
                f"the role {role} is more on the rehearsal server than on the shared one: {', '.join(more)}",
                hint="rehearse on a server where that role has the same rights, or none of that name",
            )


def own_database(there: Connection, here: Connection) -> None:
    """Give the copy the owner and the privileges of the source, such as who may make temporary tables."""
    rows = there.execute(_DATABASE).fetchall()
    copy = sql.Identifier(here.info.dbname)
    here.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(copy))
    if is_superuser(here):
        owner = there.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
        ).fetchone()
        assert owner is not None
        here.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(copy, sql.Identifier(owner[0])))
    for _, grantee, privilege, grantable in rows:
        whom = sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
        statement = sql.SQL("GRANT {} ON DATABASE {} TO {}").format(sql.SQL(privilege), copy, whom)
        here.execute(sql.SQL("{} WITH GRANT OPTION").format(statement) if grantable else statement)


def copy_settings(there: Connection, here: Connection) -> None:
    """Put what ALTER DATABASE and ALTER ROLE have set on the copy alone; what is written to the log is left out.

    Raises:
        Unavailable: The copy's server refuses a setting.
    """
    copy = sql.Identifier(here.info.dbname)
    for role, name, value in there.execute(_SETTINGS).fetchall():
        if _NOT_OF_THE_COPY.fullmatch(name):
            continue
        whose = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), copy) if role else None
        setting = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
        alter = sql.SQL("ALTER {} SET {} ").format(whose or sql.SQL("DATABASE {}").format(copy), setting)
        try:
            with here.transaction():
                if name in _LISTS:  # set here first, it is written as the list it is
                    here.execute("SELECT set_config(%s, %s, true)", (name, value))
                    here.execute(alter + sql.SQL("FROM CURRENT"))
                else:
                    here.execute(alter + sql.SQL("TO {}").format(sql.Literal(value)))
        except psycopg.Error as error:
            raise Unavailable(
                f"the setting {name} of the shared database cannot be put on the copy: {type(error).__name__}",
                hint="rehearse on a server like the shared one: rehearse --on DSN",
            ) from None


def is_superuser(connection: Connection) -> bool:
    """Whether the session may do everything."""
    row: Any = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    return bool(row[0])
