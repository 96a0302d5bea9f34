"""The schema a recording begins with: of a version of a change, of a file, or none."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psycopg
from psycopg import sql

from parallelchange.adapters.postgres.connection import connect
from parallelchange.change import Version
from parallelchange.errors import InvalidFile, SchemaState
from parallelchange.plan import Plan
from parallelchange.sqltext import split

if TYPE_CHECKING:
    from parallelchange.adapters.postgres.revisions import Revisions

__all__ = ["AtVersion", "FromFile", "Schema", "to_base"]

# pg_dump's plain form: rows between COPY and `\.`, and commands of psql that stand for nothing here.
_COPY = re.compile(r"^(COPY [^;]+ FROM stdin);\n(.*?)^\\\.$", re.DOTALL | re.MULTILINE | re.IGNORECASE)
_COMMAND = re.compile(r"^\\(\w+).*$", re.MULTILINE)
_ROLE = re.compile(r'role "(.*)" does not exist')
_HARMLESS = frozenset({"restrict", "unrestrict"})


class Schema(Protocol):
    """What a scratch database is laid out with."""

    def lay(self, url: str) -> None:
        """Before it is filled."""
        ...

    def finish(self, url: str) -> None:
        """After it was filled, before the app runs on it."""
        ...


def to_base(revisions: Revisions, make_role: Callable[[str], None]) -> None:
    """Bring a database of a scratch server to the revision a change begins at, with the roles its revisions name.

    Args:
        revisions: The revisions.
        make_role: Makes a role of that name. Roles are of a server, so those of the app are not on a scratch one.

    Raises:
        SchemaState: A revision fails for another reason.
    """
    made: set[str] = set()
    while True:
        try:
            revisions.to_base()
        except SchemaState as error:
            role = _missing_role(error.__cause__)
            if role is None or role in made:
                raise
            make_role(role)
            made.add(role)
        else:
            return


def _missing_role(error: BaseException | None) -> str | None:
    if not isinstance(error, psycopg.errors.UndefinedObject):
        return None
    found = _ROLE.fullmatch(error.diag.message_primary or "")
    return found[1] if found else None


def _make_role(connection: psycopg.Connection[tuple[object, ...]], role: str) -> None:
    connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))


@dataclass(frozen=True)
class AtVersion:
    """The schema a version of a change works on: before the change the old one, expanded the new one.

    Args:
        plan: The plan of the change.
        version: The version.
        ini: The repository's `alembic.ini`.
    """

    plan: Plan
    version: Version
    ini: Path

    def lay(self, url: str) -> None:
        """Bring it to the revision the change begins at."""
        from parallelchange.adapters.postgres.revisions import Revisions

        with connect(url) as connection:
            to_base(Revisions(url, self.plan, self.ini), lambda role: _make_role(connection, role))

    def finish(self, url: str) -> None:
        """Expand and backfill for the new version."""
        if self.version.name != self.plan.change.new.name:
            return
        from parallelchange.local.changing import changing, expand

        with changing(url, self.plan, self.ini) as database:
            expand(database)


@dataclass(frozen=True)
class FromFile:
    """A file of SQL, as pg_dump writes it; without one the database is empty.

    Args:
        path: The file; None for none.
    """

    path: Path | None = None

    def lay(self, url: str) -> None:
        """Run it.

        Raises:
            InvalidFile: It cannot be read or run.
        """
        if self.path is None:
            return
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidFile(f"cannot be read: {error}", path=self.path) from None
        with connect(url) as connection:
            at = 0
            for match in _COPY.finditer(text):
                self._run(connection, text[at : match.start()])
                try:
                    with connection.cursor() as cursor, cursor.copy(match[1].encode()) as copy:
                        copy.write(match[2])
                except psycopg.Error as error:
                    raise self._failed(match[1], error) from None
                at = match.end()
            self._run(connection, text[at:])

    def finish(self, url: str) -> None:
        """Nothing is left to do."""

    def _run(self, connection: psycopg.Connection[tuple[object, ...]], text: str) -> None:
        assert self.path is not None
        for command in _COMMAND.findall(text):
            if command not in _HARMLESS:
                hint = "give what pg_dump writes, or plain SQL"
                raise InvalidFile(f"holds psql's command \\{command}", path=self.path, hint=hint)
        for statement in split(_COMMAND.sub("", text)):
            try:
                self._execute(connection, statement)
            except psycopg.Error as error:
                raise self._failed(statement, error) from None

    @staticmethod
    def _execute(connection: psycopg.Connection[tuple[object, ...]], statement: str) -> None:
        """Run one; the owners and the grantees it names are made, since roles are of a server and not of a schema."""
        made: set[str] = set()
        while True:
            try:
                connection.execute(statement.encode())
            except psycopg.errors.UndefinedObject as error:
                role = _missing_role(error)
                if role is None or role in made:
                    raise
                _make_role(connection, role)
                made.add(role)
            else:
                return

    def _failed(self, statement: str, error: psycopg.Error) -> InvalidFile:
        assert self.path is not None
        told = (str(error).splitlines() or [type(error).__name__])[0]
        return InvalidFile(f"`{' '.join(statement.split())[:80]}` fails: {told}", path=self.path)
