"""From what single sessions sent, in order, to the transactions they sent it in. Pure.

Where the server told no more than the text, the words are PostgreSQL's: a string of several statements is one
transaction; an error undoes a transaction up to its last savepoint; a session that ends inside one rolls back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from parallelchange.sqltext import Token, joined, opening, split, tokens, unquoted

__all__ = ["Event", "Sent", "Transaction", "transactions"]

_ABORTED = "25P02"  # in_failed_sql_transaction: it was sent into a transaction that had failed, and did nothing
_TWO_PHASES = frozenset({("commit", "prepared"), ("rollback", "prepared")})
_OF_TRANSACTIONS = frozenset({"begin", "start", "commit", "end", "rollback", "abort"})


@dataclass(frozen=True)
class Event:
    """One sending, as a log or a driver's hook saw it.

    Args:
        session: Tells sessions apart.
        sql: As it was sent: maybe several statements.
        values: Bound parameters in PostgreSQL's text form; None when none were bound, or they are not known.
        types: Their types where known; the server infers the rest.
        prepared: Whether it was prepared by name, so that a changed result breaks it.
        sqlstate: What it failed with; empty when it worked.
        where: Where it was recorded.
    """

    session: str
    sql: str
    values: tuple[str | None, ...] | None = None
    types: tuple[str, ...] = ()
    prepared: bool = False
    sqlstate: str = ""
    where: str = ""


@dataclass(frozen=True)
class Sent:
    """One statement of an event: without comments, EXECUTE made into what it executes."""

    sql: str
    values: tuple[str | None, ...] | None = None
    types: tuple[str, ...] = ()
    prepared: bool = False
    sqlstate: str = ""
    where: str = ""


@dataclass(frozen=True)
class Transaction:
    """What a session sent in one transaction, or one statement it sent outside of any.

    Args:
        session: The session; a new one after DISCARD ALL, which leaves nothing of the old.
        sent: In order.
        end: `commit`, `rollback`, or `auto` for a statement outside of any transaction.
    """

    session: str
    sent: tuple[Sent, ...]
    end: str


def transactions(events: Iterable[Event]) -> Iterator[Transaction]:
    """Group events by session and transaction.

    A transaction comes where it ended, for then the other sessions saw what it did.
    """
    sessions: dict[str, _Session] = {}
    for event in events:
        session = sessions.setdefault(event.session, _Session(event.session))
        yield from session.take(event)
    for session in sessions.values():
        yield from session.close("rollback")


@dataclass
class _Prepared:
    sql: str
    types: tuple[str, ...]


@dataclass
class _Session:
    name: str
    open: list[Sent] | None = None
    failed: bool = False
    lives: int = 1
    prepared: dict[str, _Prepared] = field(default_factory=dict)

    def take(self, event: Event) -> Iterator[Transaction]:
        parts = split(event.sql)
        alone: list[Sent] = []  # of a string with several statements, outside of any transaction
        for text in parts:
            words = opening(text, 3)
            if words[:1] and words[0] in _OF_TRANSACTIONS and words[:2] not in _TWO_PHASES and "to" not in words:
                yield from self._bound(words, alone, event)
            elif words[:2] == ("prepare", "transaction"):
                yield from self.close("rollback" if event.sqlstate else "commit")
            elif words == ("discard", "all"):
                self.lives += 1
                self.prepared.clear()
            elif words[:1] == ("prepare",):
                self._prepare(text)
            elif event.sqlstate != _ABORTED:
                sent = self._resolved(text, event, alone=len(parts) == 1)
                (alone if self.open is None else self.open).append(sent)
                self.failed = bool(event.sqlstate) or (self.failed and words[:1] != ("rollback",))
        if alone:
            several = "rollback" if event.sqlstate else "commit"
            yield self._ended(alone, "auto" if len(parts) == 1 else several)

    def _bound(self, words: Sequence[str], alone: list[Sent], event: Event) -> Iterator[Transaction]:
        """Where a transaction begins or ends."""
        if words[0] in ("begin", "start"):
            if self.open is None:
                self.open, self.failed = list(alone), False
                alone.clear()
            return
        undone = words[0] in ("rollback", "abort") or self.failed or bool(event.sqlstate)
        if self.open is None:
            if alone:
                yield self._ended(alone, "rollback" if undone else "commit")
                alone.clear()
            return
        yield from self.close("rollback" if undone else "commit")
        told = [token.text.lower() for token in tokens(event.sql) if token.kind == "word"]
        if "chain" in told and "no" not in told:
            self.open = []

    def close(self, end: str) -> Iterator[Transaction]:
        found, self.open, self.failed = self.open, None, False
        if found:
            yield self._ended(found, end)

    def _ended(self, sent: Sequence[Sent], end: str) -> Transaction:
        return Transaction(self.name if self.lives == 1 else f"{self.name}#{self.lives}", tuple(sent), end)

    def _prepare(self, text: str) -> None:
        found = list(tokens(text))
        at = next((i for i, token in enumerate(found) if token.text.lower() == "as"), None)
        if at is None or at <= 1:
            return  # no PREPARE that the server took
        types = tuple(joined(part) for part in _arguments(found[2:at]))
        self.prepared[_folded(found[1])] = _Prepared(joined(found[at + 1 :]), types)

    def _resolved(self, text: str, event: Event, *, alone: bool) -> Sent:
        """A statement of an event; of several, none was bound parameters."""
        values, types = (event.values, event.types) if alone else (None, ())
        sent = Sent(text, values, types, event.prepared and alone, event.sqlstate, event.where)
        if opening(text, 1) != ("execute",):
            return sent
        found = list(tokens(text))
        known = self.prepared.get(_folded(found[1])) if len(found) > 1 else None
        if known is None:
            return sent
        given = list(_arguments(found[2:]))
        constants = [_constant(part) for part in given]
        if all(isinstance(each, _Constant) for each in constants):
            values = tuple(each.value for each in constants if each)
            return replace(sent, sql=known.sql, values=values or None, types=known.types, prepared=True)
        return replace(sent, sql=_inlined(known, given), values=None, types=(), prepared=True)


@dataclass(frozen=True)
class _Constant:
    value: str | None


def _folded(token: Token) -> str:
    return token.text if token.kind == "quoted" else token.text.lower()


def _arguments(found: Sequence[Token]) -> Iterator[list[Token]]:
    """The parts of `( a, b, … )`; none when it does not begin with a parenthesis."""
    if not found or found[0].text != "(":
        return
    depth = 0
    part: list[Token] = []
    for token in found:
        depth += (token.text in "([") - (token.text in ")]")
        if (depth == 1 and token.text == ",") or depth == 0:
            yield part
            part = []
            if depth == 0:
                return
        elif depth > 1 or token.text != "(":
            part.append(token)


def _constant(found: Sequence[Token]) -> _Constant | None:
    """An argument that is but a value; None for an expression, which only the server can work out."""
    if len(found) == 1:
        only = found[0]
        if only.kind == "number":
            return _Constant(only.text)
        if only.kind == "string":
            text = unquoted(only.text)
            return None if text is None else _Constant(text)
        word = only.text.lower()
        return _Constant(None if word == "null" else word) if word in ("null", "true", "false") else None
    sign, *rest = found or [Token("sign", "")]
    return _Constant("-" + rest[0].text) if sign.text == "-" and [t.kind for t in rest] == ["number"] else None


def _inlined(known: _Prepared, given: Sequence[Sequence[Token]]) -> str:
    """A prepared statement with its arguments, which are expressions, in their places."""

    def placed(token: Token) -> Token:
        number = int(token.text[1:]) - 1 if token.kind == "parameter" else -1
        if not 0 <= number < len(given):
            return token
        cast = f"::{known.types[number]}" if number < len(known.types) else ""
        return Token("sign", f"({joined(given[number])}){cast}", token.space)

    return joined([placed(token) for token in tokens(known.sql)])
