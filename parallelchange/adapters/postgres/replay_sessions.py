"""What belongs to a session and not to a transaction, for replaying the sessions of a version on one connection.

Settings, temporary tables and prepared statements of a session are put aside when another's turn comes, and brought
back with its own: all share one transaction, for what one has written the others must see, and it is never committed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.role_settings import role_settings
from parallelchange.errors import Unavailable

__all__ = ["Sessions"]

_GUARD = {
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "client_encoding": "UTF8",
}
"""Whatever a version sets: nothing hangs a replay or ends its session, and a corpus is sent as it is written."""

_NOT_KEPT = ["role", "session_authorization", "is_superuser", "in_hot_standby", *_GUARD]
_SETTINGS = (
    "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> ALL(%s) AND name !~ '^transaction_'"
)
_TEMPORARY = (
    "SELECT oid::int8, relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind <> 't'"
    " AND relname !~ '^parallelchange_' ORDER BY oid"
)
_SET_LOCAL = re.compile(r'\s*set\s+local\s+(time\s+zone|role|"[^"]+"|[\w.]+)', re.IGNORECASE)
_SET_CONFIG = re.compile(r"set_config\s*\(\s*(?:'([^']+)'|\$\d+)", re.IGNORECASE)
_SET_CUSTOM = re.compile(r'\s*set\s+(?:session\s+)?("?\w+"?\."?\w+"?)', re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_][\w.]*")


@dataclass
class _Kept:
    """What was put aside of one session."""

    settings: dict[str, str] = field(default_factory=dict)
    temporary: dict[int, str] = field(default_factory=dict)
    prepared: dict[str, str] = field(default_factory=dict)


class Sessions:
    """The recorded sessions, one of which has its turn.

    Args:
        connection: A session inside a transaction that is rolled back in the end.
        application_name: What the version's sessions call themselves.
        role: The role of its sessions; None for the one we are.
    """

    def __init__(self, connection: Connection, application_name: str | None, role: str | None) -> None:
        self.connection, self.application_name, self.role = connection, application_name, role
        self._kept: dict[int, _Kept] = {}
        self._turn: int | None = None
        self._custom: set[str] = set()
        self._local: dict[str, str | None] = {}
        known = {row[0] for row in connection.execute("SELECT name FROM pg_settings")}
        self._guard = {name: value for name, value in _GUARD.items() if name in known}
        self._role_settings = role_settings(connection, role, its_own=True) if role else {}
        if role:
            try:
                connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
            except psycopg.Error as error:
                raise Unavailable(
                    f"the rehearsal cannot act as role {role}: {str(error).splitlines()[0]}",
                    hint="name the version's role as it is on the server; only a superuser of the copy can act as it",
                ) from None
        self._fresh()

    def enter(self, number: int) -> None:
        """It is this session's turn."""
        if number == self._turn:
            return
        if self._turn is not None:
            self._put_aside(self._kept[self._turn])
            self._fresh()
        self._turn = number
        kept = self._kept.setdefault(number, _Kept())
        for name, value in kept.settings.items():
            self.set(name, value)
        for oid, name in kept.temporary.items():
            self._rename(f"parallelchange_{oid}", name)
        for text in kept.prepared.values():
            self.attempt(text)
        kept.temporary.clear()

    def _put_aside(self, kept: _Kept) -> None:
        kept.settings = dict(self.connection.execute(_SETTINGS, (_NOT_KEPT,)).fetchall())
        for name in ("role", *self._custom):
            value = self._setting(name)
            if value not in (None, "", "none"):
                kept.settings[name] = str(value)
        self.set("role", "none")
        for oid, name in self.connection.execute(_TEMPORARY).fetchall():
            kept.temporary[oid] = name
            self._rename(name, f"parallelchange_{oid}")
        if kept.prepared:
            self.connection.execute("DEALLOCATE ALL")

    def _fresh(self) -> None:
        """A session as it is when it is opened."""
        self.connection.execute("RESET ALL")
        self.set("role", "none")
        self.reset()

    def guard(self) -> None:
        """Put back what is ours, whatever was set."""
        for name, value in self._guard.items():
            self.set(name, value)

    def reset(self) -> None:
        """After `RESET ALL`: what a session begins with is ours to give."""
        self.set("application_name", self.application_name or "")
        for name, value in self._role_settings.items():
            self.set(name, value)
        self.guard()

    def discard(self) -> None:
        """`DISCARD ALL`, of this session alone."""
        for _, name in self.connection.execute(_TEMPORARY).fetchall():
            self.attempt(sql.SQL("DROP TABLE IF EXISTS pg_temp.{} CASCADE").format(sql.Identifier(name)))
        self.connection.execute("DEALLOCATE ALL")
        if self._turn is not None:
            self._kept[self._turn] = _Kept()
        self._fresh()

    def foresee(self, text: str, values: Sequence[str | None]) -> None:
        """Remember what a statement is about to set until the end of its transaction, or under a name of its own."""
        names: list[str] = []
        if found := _SET_CUSTOM.match(text):
            self._custom.add(found[1].replace('"', ""))
        if found := _SET_LOCAL.match(text):
            names = ["TimeZone" if found[1].lower().startswith("time") else found[1].strip('"')]
        elif "set_config" in text.lower():
            names = [name for name in _SET_CONFIG.findall(text) if name]
            names += [v for v in values if v and _NAME.fullmatch(v) and self._known(v)]
            self._custom.update(name for name in names if "." in name)
            if "true" not in text.lower() and not {"t", "true"} & set(values):
                names = []
        for name in names:
            self._local.setdefault(name, self._setting(name))

    def prepared(self, name: str, text: str | None) -> None:
        """A statement was prepared under a name, or no longer is; no name stands for all of them."""
        if self._turn is None:
            return
        known = self._kept[self._turn].prepared
        if text is not None:
            known[name] = text
        elif name:
            known.pop(name, None)
        else:
            known.clear()

    def transaction_ended(self) -> None:
        """What was set until the end of the transaction is put back; the one we are in goes on."""
        for name, value in self._local.items():
            self.set(name, value or "")
        self._local.clear()

    def transaction_undone(self) -> None:
        """The rollback has put everything back."""
        self._local.clear()

    def set(self, name: str, value: str) -> None:
        """Set something; what may not be set is left as it is."""
        self.attempt(sql.SQL("SELECT set_config({}, {}, false)").format(name, value))

    def attempt(self, statement: str | sql.Composed, *values: object) -> list[Any] | None:
        """Run something of ours that may be refused, and leave no trace where it is.

        Returns:
            Its rows, if any; None where it was refused.
        """
        self.connection.execute("SAVEPOINT parallelchange_own")
        try:
            cursor = self.connection.execute(statement, values or None)
            rows = cursor.fetchall() if cursor.description else []
        except psycopg.Error:
            if self.connection.closed:
                raise
            self.connection.execute("ROLLBACK TO SAVEPOINT parallelchange_own")
            rows = None
        self.connection.execute("RELEASE SAVEPOINT parallelchange_own")
        return rows

    def _rename(self, name: str, to: str) -> None:
        rename = sql.SQL("ALTER TABLE pg_temp.{} RENAME TO {}")
        self.attempt(rename.format(sql.Identifier(name), sql.Identifier(to)))

    def _setting(self, name: str) -> str | None:
        rows = self.attempt("SELECT current_setting(%s, true)", name)
        return rows[0][0] if rows else None

    def _known(self, name: str) -> bool:
        if "." in name:
            return True
        row = self.connection.execute("SELECT FROM pg_settings WHERE lower(name) = lower(%s)", (name,)).fetchone()
        return row is not None
