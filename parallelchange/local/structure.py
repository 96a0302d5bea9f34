"""The schema of a copy: what pg_dump writes of the source, read back section by section."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from parallelchange.adapters.postgres.connection import Connection, describe_url
from parallelchange.errors import Busy, Denied, Unavailable

__all__ = ["LOCK_WAIT", "Structure", "check_extensions", "refresh_views"]

LOCK_WAIT = "5s"
"""How long the source's locks are waited for: a table that others wait for is not held up by a copy."""

_OPTIONS = (
    "--format=custom",
    "--schema-only",
    "--no-subscriptions",
    "--no-sync",
    "--exclude-schema=parallelchange",
    f"--lock-wait-timeout={LOCK_WAIT}",
)
_EVENT_TRIGGER = re.compile(r"\d+; \d+ \d+ (EVENT TRIGGER |COMMENT - EVENT TRIGGER )")
_LEFT_OUT = re.compile(r"\d+; \d+ \d+ USER MAPPING ")  # they hold passwords of other servers
_UNKNOWN_BEFORE_17 = "SET transaction_timeout = 0;\n"

_MEANINGS: tuple[tuple[str, tuple[str, ...], type[Unavailable], str], ...] = (
    # pg_dump limits its LOCK TABLE by the statement's time.
    ("pg_dump", ("statement timeout", "lock timeout"), Busy, "another session holds a strong lock: try again later"),
    ("pg_dump", ("permission denied",), Denied, "the role needs to read every table, sequence and schema"),
    (
        "psql",
        ("permission denied", "must be "),
        Denied,
        "rehearse as a superuser of that server, or as a member of the roles that own what is copied",
    ),
    (
        "psql",
        ("violates foreign key constraint",),
        Unavailable,
        "rows of the source break that key although it counts as valid: mend them",
    ),
    (
        "psql",
        ("could not create unique index",),
        Unavailable,
        "a masking rule gives two rows the same value: use `hash`",
    ),
)


@dataclass(frozen=True)
class Structure:
    """The schema of the source, as dumped.

    Args:
        source: URL of the source.
        target: URL of the copy.
        tools: Folder of pg_dump, pg_restore and psql.
        folder: An empty folder nobody else reads.
    """

    source: str
    target: str
    tools: Path
    folder: Path

    def dump(self, snapshot: str) -> None:
        """Dump the schema as it is in a snapshot.

        Raises:
            Unavailable: The role may not read it, or a lock was not to be had.
        """
        command = [*_OPTIONS, f"--snapshot={snapshot}", f"--file={self._archive}"]
        self._run("pg_dump", command, self.source)
        lines = self._run("pg_restore", ["--list", str(self._archive)], None).decode().splitlines()
        kept = [line for line in lines if not _LEFT_OUT.match(line)]
        self._write("schema", [line for line in kept if not _EVENT_TRIGGER.match(line)])
        self._write("event-triggers", [line for line in kept if _EVENT_TRIGGER.match(line)])

    @property
    def event_triggers(self) -> bool:
        """Whether the source has event triggers, which only a superuser can make."""
        return (self.folder / "event-triggers").stat().st_size > 0

    def restore(self, part: str, section: str) -> None:
        """Restore a section of a part: `pre-data` or `post-data` of `schema`, or of `event-triggers`.

        Raises:
            Unavailable: The copy's server refuses it.
        """
        options = [f"--section={section}", f"--use-list={self.folder / part}", "--no-tablespaces", "--file=-"]
        text = self._run("pg_restore", [*options, "--no-security-labels", str(self._archive)], None)
        # The setting is newer than the servers that are dumped and restored to; 0 is its default.
        text = text.replace(_UNKNOWN_BEFORE_17.encode(), b"", 1)
        self._run("psql", ["-X", "-q", "-v", "ON_ERROR_STOP=1"], self.target, text)

    @property
    def _archive(self) -> Path:
        return self.folder / "archive"

    def _write(self, part: str, lines: Sequence[str]) -> None:
        (self.folder / part).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def _run(self, program: str, options: list[str], url: str | None, stdin: bytes | None = None) -> bytes:
        env = dict(os.environ)
        if url is not None:
            # A password on a command line is there for everybody on the machine to read.
            parts: dict[str, Any] = conninfo_to_dict(url)
            password = parts.pop("password", None)
            if password:
                env["PGPASSWORD"] = str(password)
            if "sslpassword" in parts:
                raise Unavailable(
                    f"{describe_url(url)} is reached with sslpassword, which programs take on their command line only",
                    hint="use a key without a passphrase for the rehearsal",
                )
            options = [*options, "-d", make_conninfo(**parts)]
        done = subprocess.run(
            [str(self.tools / program), *options], input=stdin, capture_output=True, check=False, env=env
        )
        if done.returncode:
            raise self._failed(program, done.stderr.decode(errors="replace"))
        return done.stdout

    def _failed(self, program: str, stderr: str) -> Unavailable:
        # Only the error itself: its details quote rows.
        lines = [line for line in stderr.splitlines() if "error:" in line.lower() or "FATAL:" in line]
        reason = lines[0].split("rror:", 1)[-1].split("ERROR:", 1)[-1].strip() if lines else f"{program} failed"
        what = f"{describe_url(self.source)} cannot be copied for the rehearsal: {reason}"
        for of, words, kind, hint in _MEANINGS:
            if program == of and any(word in stderr for word in words):
                return kind(what, hint=hint)
        if program == "psql":
            hint = f"{describe_url(self.target)} refuses it: rehearse on a server like the shared one (--on)"
            return Unavailable(what, hint=hint)
        return Unavailable(what, hint="the shared server must not be newer than the embedded PostgreSQL")


def check_extensions(there: Connection, here: Connection) -> None:
    """See that the copy's server has what the source's schema is made with.

    Raises:
        Unavailable: An extension is missing there.
    """
    used = {str(row[0]) for row in there.execute("SELECT extname FROM pg_extension")}
    known = {str(row[0]) for row in here.execute("SELECT name FROM pg_available_extensions")}
    missing = sorted(used - known)
    if missing:
        several = "s" if len(missing) > 1 else ""
        raise Unavailable(
            f"the server of the rehearsal copy does not have the extension{several} {', '.join(missing)}",
            hint="rehearse on a server that has what the shared one has: rehearse --on DSN",
        )


_UNFILLED = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated AND n.nspname <> 'parallelchange' ORDER BY c.oid
"""


def refresh_views(there: Connection, here: Connection) -> None:
    """Fill the materialized views that are filled on the source, those that others read first.

    Raises:
        Unavailable: One cannot be computed from the copy's rows.
    """
    from psycopg import Error, errors

    waiting = there.execute(_UNFILLED).fetchall()
    while waiting:
        still = []
        for schema, name in waiting:
            try:
                here.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(schema, name)))
            except errors.ObjectNotInPrerequisiteState:
                still.append((schema, name))
            except Error as error:
                raise Unavailable(
                    f"the materialized view {schema}.{name} cannot be computed on the copy: {type(error).__name__}",
                    hint="a masking rule may give values that its query cannot work with",
                ) from None
        if len(still) == len(waiting):
            raise Unavailable(f"the materialized view {still[0][0]}.{still[0][1]} cannot be filled on the copy")
        waiting = still
