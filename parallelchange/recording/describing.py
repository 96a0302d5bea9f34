"""Asking the server for the shape of what was recorded, in the surroundings it was sent in. Pure but for its port."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from parallelchange.sqltext import Kind, fill, kind_of, opening, tokens

__all__ = ["Describe", "Draft", "Known", "Refused", "describe_all"]

_TRIES = 3
_DEFINING = frozenset({"create", "alter", "drop", "set", "reset", "do", "call", "select", "with"})


class Refused(Exception):
    """The server does not take a statement; the message says why."""


class Describe(Protocol):
    """A session that describes statements on the schema they were recorded on."""

    def __call__(self, sql: str, types: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Describe a statement without running it.

        Args:
            sql: The statement.
            types: Types of its parameters; where too few are given the server infers the rest.

        Returns:
            Its columns as `name type`, and the types of its parameters.

        Raises:
            Refused: The server does not take it.
        """
        ...

    def run(self, sql: str) -> None:
        """Run a statement that defines something; only ever inside a transaction that is rolled back.

        Raises:
            Refused: It failed.
        """
        ...


@dataclass(eq=False)
class Known:
    """One statement, as far as it is known yet.

    Args:
        sql: With $1, $2, … for parameters or literals.
        bound: Number of parameters bound; None when they are not known, 0 for a statement with none.
        types: Types of its parameters, where they are known.
        literals: Of its first sending.
        lookup: What its session had set at its first sending that decides what names mean.
        where: Where it was recorded.
        prepared: Whether it was prepared by name in any sending.
        worked: Whether any sending worked.
        columns: As `name type`, once it is described.
        unasked: As in `Recorded`.
        refused: Why the server does not take it by itself; empty when it does.
    """

    sql: str
    bound: int | None
    types: tuple[str, ...]
    literals: tuple[str, ...]
    lookup: tuple[str, ...]
    where: str
    prepared: bool = False
    worked: bool = False
    columns: tuple[str, ...] = ()
    unasked: str = ""
    refused: str = ""

    @property
    def text(self) -> str:
        """As it was first sent."""
        return self.sql if self.bound != 0 else fill(self.sql, self.literals)

    @property
    def asked(self) -> bool:
        """Whether the server can describe it at all; of utility statements it tells the parameters only."""
        return kind_of(self.sql) is not Kind.UTILITY or self.bound != 0


@dataclass
class Draft:
    """A transaction whose statements are not described yet.

    Args:
        session: Its number.
        steps: Statement, its values as they are kept, what it failed with.
        end: As in `Unit`.
    """

    session: int
    steps: list[tuple[Known, tuple[str | None, ...], str]]
    end: str


def describe_all(known: Sequence[Known], drafts: Sequence[Draft], describe: Describe) -> None:
    """Describe each statement, and note of those that cannot be described by themselves why that is so.

    What the schema at the end does not take is asked again while what the sessions defined is defined anew, in one
    transaction that is rolled back: first what outlives a session, such as tables that the app's tests drop in the
    end and that are there where the app serves, so it can be asked anywhere; then what only its session has.
    """
    for statement in known:
        if statement.asked:
            _by_itself(statement, describe)
    for lasting in (True, False):
        waiting = {id(statement) for statement in known if statement.refused and statement.worked}
        if waiting:
            _Replay(describe, waiting, lasting=lasting).go(drafts)


def _by_itself(statement: Known, describe: Describe) -> None:
    try:
        plain = describe(statement.text, statement.types)
    except Refused as refused:
        plain, statement.refused = None, str(refused)
    found = plain
    if statement.lookup:
        describe.run("BEGIN")
        try:
            for setting in statement.lookup:
                describe.run(setting)
            found = describe(statement.text, statement.types)
        except Refused as refused:
            found, statement.refused = None, str(refused)
        finally:
            describe.run("ROLLBACK")
    if found is not None:
        statement.refused = ""
        statement.columns, inferred = found
        statement.types = inferred if statement.bound != 0 else ()
        if plain != found:
            statement.unasked = f"it was sent after {'; '.join(statement.lookup)}"


class _Replay:
    """Defines anew what was defined, in order, and describes on the way."""

    def __init__(self, describe: Describe, waiting: set[int], *, lasting: bool) -> None:
        self.describe = describe
        self.waiting = waiting
        self.lasting = lasting
        self.tries: Counter[int] = Counter()
        self.session = 0

    def go(self, drafts: Sequence[Draft]) -> None:
        self.describe.run("BEGIN")
        try:
            for draft in drafts:
                if not self.waiting:
                    return
                self._transaction(draft)
        finally:
            self.describe.run("ROLLBACK")

    def _transaction(self, draft: Draft) -> None:
        self.describe.run("SAVEPOINT transaction")
        for statement, values, sqlstate in draft.steps:
            if sqlstate:
                continue
            if id(statement) in self.waiting:
                self._try(statement)
            elif _defines(statement) and not (self.lasting and _for_its_session(statement)):
                if self.session != draft.session or statement.lookup:
                    self._attempt(*_reset(statement))
                    self.session = draft.session
                self._attempt(fill(statement.sql, [value or "NULL" for value in values]))
        if draft.end == "rollback":
            self.describe.run("ROLLBACK TO transaction")
        self.describe.run("RELEASE transaction")

    def _try(self, statement: Known) -> None:
        if self.lasting and statement.lookup:
            return  # by itself it is sent elsewhere
        self.describe.run("SAVEPOINT attempt")
        try:
            for setting in _reset(statement):
                self.describe.run(setting)
            statement.columns, inferred = self.describe(statement.text, statement.types)
        except Refused as refused:
            self.describe.run("ROLLBACK TO attempt")
            self.tries[id(statement)] += 1
            statement.unasked = f"the server could not describe it: {refused}"
            if self.tries[id(statement)] >= _TRIES:
                self.waiting.discard(id(statement))
        else:
            statement.types = inferred if statement.bound != 0 else ()
            statement.refused = ""
            statement.unasked = "" if self.lasting else "what it needs is made or set by its own session"
            self.waiting.discard(id(statement))
        self.describe.run("RELEASE attempt")

    def _attempt(self, *texts: str) -> None:
        self.describe.run("SAVEPOINT attempt")
        try:
            for text in texts:
                self.describe.run(text)
        except Refused:
            self.describe.run("ROLLBACK TO attempt")
        self.describe.run("RELEASE attempt")


def _reset(statement: Known) -> tuple[str, ...]:
    return ("RESET search_path", "RESET ROLE", *statement.lookup)


def _defines(statement: Known) -> bool:
    """Whether running it can make what another statement names."""
    words = opening(statement.sql, 1)
    if statement.bound or not words or words[0] not in _DEFINING:
        return False
    into = kind_of(statement.sql) is Kind.WRITE and " into " in statement.sql.lower()
    return into or words[0] not in ("select", "with")


def _for_its_session(statement: Known) -> bool:
    words = {token.text.lower() for token in tokens(statement.sql) if token.kind == "word"}
    return words.isdisjoint(("function", "procedure", "do")) and not words.isdisjoint(("temp", "temporary", "pg_temp"))
