"""The corpus: every statement a version sends, and the transactions it sent them in, as they were recorded.

As a file (format 2) it is JSON that can be read as a diff: statements sorted by their text, each with an id that
depends on the text alone, then one line for each unit of work, in the order they were sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from parallelchange.errors import InvalidFile
from parallelchange.sqltext import Kind, fill, kind_of

__all__ = ["Corpus", "Recorded", "Step", "Unit", "read_corpus", "read_recorded", "write_corpus"]

_FORMAT = 2


@dataclass(frozen=True)
class Recorded:
    """One statement, its literals taken out where it was sent without parameters.

    Args:
        sql: Its text. $1, $2, … stand first for its parameters, then for literals taken out.
        types: Type of each parameter, as `format_type` writes it; the placeholders beyond them are literals.
        columns: Its result's columns as `name type`; empty when it gives none.
        prepared: Whether a session prepared it by name, so that a changed result breaks it.
        where: Where it was recorded.
        unasked: Why it cannot be prepared by itself: what it names is made or set by its own session, or nobody could
            describe it, and then its columns are empty. Empty when it can be prepared.
        inferred: Whether the server inferred its parameters' types when it was recorded, for its sender's were not
            told: those may be others that were as good then.
    """

    sql: str
    types: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    prepared: bool = False
    where: str = ""
    unasked: str = ""
    inferred: bool = False

    @cached_property
    def id(self) -> str:
        """Told by its text and its parameters, and so the same in every recording."""
        return hashlib.sha256("\0".join((self.sql, *self.types)).encode()).hexdigest()[:10]

    @cached_property
    def kind(self) -> Kind:
        """Whether it reads, writes, or cannot be prepared."""
        return kind_of(self.sql)

    def text(self, step: Step | None) -> str:
        """As it was sent in a step, its literals put back; parameters stay $1, $2 and so on."""
        literals = step.literals(self) if step else ()
        return fill(self.sql, literals, first=len(self.types) + 1) if literals else self.sql


@dataclass(frozen=True)
class Step:
    """One sending of a statement.

    Args:
        statement: The statement's id.
        values: Its parameters in PostgreSQL's text form, None for NULL; then its literals as they were written.
        sqlstate: What it failed with when it was recorded; empty when it worked.
    """

    statement: str
    values: tuple[str | None, ...] = ()
    sqlstate: str = ""

    def parameters(self, statement: Recorded) -> tuple[str | None, ...]:
        """Values of its parameters."""
        return self.values[: len(statement.types)]

    def literals(self, statement: Recorded) -> tuple[str, ...]:
        """Its literals."""
        return tuple(value or "" for value in self.values[len(statement.types) :])


@dataclass(frozen=True)
class Unit:
    """One transaction, or one statement sent outside of any.

    Args:
        session: Number of the session, from 1; what a session sets or makes for itself, its later units see.
        steps: In the order they were sent. BEGIN, COMMIT and ROLLBACK are not among them; savepoints are.
        end: `commit`, `rollback`, or `auto` for a statement outside of any transaction.
    """

    session: int
    steps: tuple[Step, ...]
    end: str = "auto"


@dataclass(frozen=True)
class Corpus:
    """All that one version sends.

    Args:
        version: The version's name.
        statements: Sorted by text.
        units: In the order they were sent.
        digest: sha256 over the file's bytes; empty for a corpus that was read from no file.
    """

    version: str
    statements: tuple[Recorded, ...]
    units: tuple[Unit, ...] = ()
    digest: str = field(default="", compare=False)

    @cached_property
    def by_id(self) -> dict[str, Recorded]:
        """Statements by their ids."""
        return {statement.id: statement for statement in self.statements}

    @cached_property
    def examples(self) -> dict[str, Step]:
        """The first sending of each statement, by its id; a statement that was never seen sent has none."""
        first: dict[str, Step] = {}
        for step in self.steps():
            first.setdefault(step.statement, step)
        return first

    def steps(self) -> Iterator[Step]:
        """All of them, in order."""
        for unit in self.units:
            yield from unit.steps


def read_corpus(path: Path, version: str) -> Corpus:
    """Read a corpus.

    Raises:
        InvalidFile: It is not there, no corpus, one of another version, or one that does not fit together.
    """
    return _read(path, version, read_recorded(path, version))


def read_recorded(path: Path, version: str) -> bytes:
    """The bytes of a corpus, whatever they are.

    Raises:
        InvalidFile: It is not there, or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InvalidFile(f"is not there: the statements of {version} are not recorded yet", path=path,
                          hint=f"record them: {_command(version)}") from None  # fmt: skip
    except OSError as error:
        raise InvalidFile(f"is no corpus of statements: {error}", path=path, hint=_hint(version)) from None


def _hint(version: str) -> str:
    return f"record it again: {_command(version)}"


def _command(version: str) -> str:
    return f"parallelchange record {version} --change CHANGE -- COMMAND"


@lru_cache(maxsize=8)
def _read(path: Path, version: str, content: bytes) -> Corpus:
    """Read it once: a rollout looks at its corpora again and again."""
    hint = _hint(version)
    try:
        raw = json.loads(content)
        found = raw.get("format", 1)
        if found != _FORMAT:
            raise InvalidFile(f"is a corpus of format {found}, not {_FORMAT}", path=path, hint=hint)
        statements = tuple(map(_statement, raw["statements"]))
        units = tuple(map(_unit, raw["units"]))
        recorded = str(raw["version"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InvalidFile(f"is no corpus of statements: {error}", path=path, hint=hint) from None
    corpus = Corpus(recorded, statements, units, hashlib.sha256(content).hexdigest())
    texts = (text for item in statements for text in (item.sql, *item.types))
    values = (value or "" for step in corpus.steps() for value in step.values)
    if any("\x00" in text for text in (*texts, *values)):
        raise InvalidFile("holds a NUL character, which PostgreSQL takes in no text", path=path, hint=hint)
    for step in corpus.steps():
        known = corpus.by_id.get(step.statement)
        if known is None or len(step.values) < len(known.types):
            told = "has too few values" if known else "is not among the statements"
            raise InvalidFile(f"a step's statement {step.statement} {told}", path=path, hint=hint)
    if recorded != version:
        raise InvalidFile(f"holds the statements of {recorded}, not of {version}", path=path, hint=hint)
    return corpus


def _statement(raw: Any) -> Recorded:
    return Recorded(
        str(raw["sql"]), tuple(map(str, raw["types"])), tuple(map(str, raw["columns"])),
        bool(raw["prepared"]), str(raw["where"]), str(raw.get("unasked", "")),
        bool(raw.get("inferred", False)),
    )  # fmt: skip


def _unit(raw: Any) -> Unit:
    if raw["end"] not in ("commit", "rollback", "auto"):
        raise ValueError(f"a unit ends with {raw['end']!r}")
    steps = (
        Step(str(step[0]), tuple(None if v is None else str(v) for v in step[1]), str(step[2]) if step[2:] else "")
        for step in raw["steps"]
    )
    return Unit(int(raw["session"]), tuple(steps), raw["end"])


def write_corpus(path: Path, corpus: Corpus) -> None:
    """Write a corpus so that a diff of it can be read."""
    statements = [
        {
            "id": item.id, "sql": item.sql, "types": item.types, "columns": item.columns,
            "prepared": item.prepared, "where": item.where, **({"unasked": item.unasked} if item.unasked else {}),
            **({"inferred": True} if item.inferred else {}),
        }
        for item in sorted(corpus.statements, key=lambda item: (item.sql, item.types))
    ]  # fmt: skip
    units = [
        {
            "session": unit.session,
            "end": unit.end,
            "steps": [[s.statement, s.values, *([s.sqlstate] if s.sqlstate else [])] for s in unit.steps],
        }
        for unit in corpus.units
    ]
    head = json.dumps({"format": _FORMAT, "version": corpus.version}, ensure_ascii=False)[1:-1]
    listed = json.dumps(statements, indent=1, ensure_ascii=False)
    sent = ",\n".join(json.dumps(unit, ensure_ascii=False) for unit in units)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{{head},\n"statements": {listed},\n"units": [\n{sent}\n]}}\n', encoding="utf-8")
