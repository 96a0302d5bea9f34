"""Asking about statements: what the server says of them without running them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from parallelchange.adapters.postgres.askable import locking_names, unasked
from parallelchange.adapters.postgres.asking import AskingSession, asking_session
from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.pipeline import Ask, message_of, pipelined, sqlstate_of
from parallelchange.adapters.postgres.plans import Storage, read_plan, read_storage
from parallelchange.adapters.postgres.shapes import FINE, Column, Types, columns_of
from parallelchange.corpus import Corpus, Recorded
from parallelchange.errors import Busy, LockedMore
from parallelchange.gates.prepare import PlanFact, StatementFact
from parallelchange.sqltext import tokens

__all__ = ["Question", "ask_all", "questions"]

_BATCH = 100
"""Statements in a transaction: its locks are held for some hundredths of a second, and the session stays small."""

_LOCKS = b"""
SELECT string_agg(DISTINCT mode || ' on ' || coalesce(relation::regclass::text, locktype), ', ') FROM pg_locks
WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid' AND mode <> 'AccessShareLock'
"""
_OF_LOCKS = ("55P03", "57014")
"""lock_not_available, query_canceled."""
_OF_RIGHTS = "42501"
_OF_TWO = "42725"
"""ambiguous_function: an overload has come."""
_OF_NULLS = ("23502", "23514")
"""A parameter's domain takes no NULL, and a plan is asked for with NULLs."""

_DOLLARS = re.compile(rb"\$(\d+)")


@dataclass(frozen=True)
class _Answer:
    """What the server said of one statement."""

    error: str | None = None
    columns: tuple[Column, ...] | None = None
    plan: PlanFact | None = None


@dataclass(frozen=True)
class Question:
    """One statement as it is asked about.

    Args:
        id: Its id.
        text: Its text.
        types: Oids of its parameters' types.
        inferred: Whether the server once inferred these types. It must do so still: a driver that sends others, or
            none, would else mean another function or operator by it, or one of two that fit as well.
    """

    id: str
    text: bytes
    types: Sequence[int]
    inferred: bool = False

    def asks(self, name: str) -> list[Ask]:
        """Prepare it under a name, then explain it with a NULL for each parameter; EXPLAIN runs nothing."""
        nulls = ", ".join(["NULL"] * self._parameters())
        explain = f"EXPLAIN (COSTS OFF, FORMAT JSON) EXECUTE {name}" + (f"({nulls})" if nulls else "")
        return [(name.encode(), self.text, self.types), explain.encode()]

    def _parameters(self) -> int:
        known = len(self.types)
        if max(map(int, _DOLLARS.findall(self.text)), default=0) <= known:
            return known
        # There may be more of them than its types tell, or what looks like one stands in a literal.
        return max(known, *(int(t.text[1:]) for t in tokens(self.text.decode()) if t.kind == "parameter"), 0)


def ask_all(url: str, corpus: Corpus, *, role: str | None, on_copy: bool) -> list[StatementFact]:
    """Ask the server about each statement of a version, and run none.

    Args:
        url: The database.
        corpus: What the version sends.
        role: The version's role, whose view of names and, where we may, whose privileges hold; None for ours.
        on_copy: Whether it is a scratch copy. On a database that serves, only what takes ACCESS SHARE is asked about.

    Raises:
        Busy: A lock was not to be had in time.
        LockedMore: Asking took a stronger lock than ACCESS SHARE where the database serves.
        Unavailable: The database does not answer, or has no such role.
    """
    with asking_session(url, role) as session:
        connection = session.connection
        left = unasked(corpus, on_copy=on_copy, locking=frozenset() if on_copy else locking_names(connection))
        types = Types(connection)
        asked = questions(connection, corpus, [s for s in corpus.statements if s.id not in left], types)
        answers = _Asker(session, read_storage(connection), on_copy=on_copy).ask(asked)
        names = types.names((oid, mod) for a in answers.values() for _, oid, mod in a.columns or ())
        gone = {s.id: types.gone(s.types) for s in corpus.statements if s.prepared}
    return [
        _fact(statement, answers.get(statement.id), left.get(statement.id, ""), names, gone.get(statement.id))
        for statement in corpus.statements
    ]


def questions(
    connection: Connection, corpus: Corpus, statements: Sequence[Recorded], types: Types | None = None
) -> list[Question]:
    """Statements as they are asked about, with the values of their first sending where literals were taken out."""
    types = types or Types(connection)
    types.oids({type_ for statement in corpus.statements for type_ in statement.types})
    return [
        Question(s.id, s.text(corpus.examples.get(s.id)).encode(), types.oids(s.types), s.inferred) for s in statements
    ]


def _fact(
    statement: Recorded,
    answer: _Answer | None,
    why: str,
    names: Mapping[tuple[int, int], str],
    gone: str | None,
) -> StatementFact:
    fact = StatementFact(statement.id, statement.sql, statement.where, statement.columns, unasked=why)
    if gone and (answer is None or answer.error is None):
        # A session that has prepared it holds on to the type's oid; only a new one has its type inferred anew.
        told = f"there is no type {gone} any more, which sessions that have prepared it give a parameter"
        return replace(fact, error=told, plan=answer.plan if answer else None)
    if answer is None:
        return fact
    found = None if answer.columns is None else tuple(f"{name} {names[oid, mod]}" for name, oid, mod in answer.columns)
    return replace(fact, error=answer.error, found=found, plan=answer.plan)


class _Asker:
    """Asks about statements in batches; each batch is one transaction that is rolled back."""

    def __init__(self, session: AskingSession, storage: Storage, *, on_copy: bool) -> None:
        self.session, self.storage, self.on_copy = session, storage, on_copy

    def ask(self, questions: Sequence[Question]) -> dict[str, _Answer]:
        """Ask about all of them.

        A failure ends its transaction, so those before it are asked again by themselves, to see their locks too.
        """
        answers: dict[str, _Answer] = {}
        batches = [questions[at : at + _BATCH] for at in range(0, len(questions), _BATCH)]
        while batches:
            batch = batches.pop()
            found = self._batch(batch)
            if len(found) == len(batch) and all(a.error is None and not _failed(a.plan) for a in found):
                answers.update(zip((q.id for q in batch), found, strict=True))
                continue
            last = len(found) - 1
            answers[batch[last].id] = found[last]
            batches += [part for part in (batch[:last], batch[last + 1 :]) if part]
        return answers | self._inferring(questions, answers)

    def _inferring(self, questions: Sequence[Question], answers: Mapping[str, _Answer]) -> dict[str, _Answer]:
        """Those that mean something else, or nothing, once the server is left to infer the types anew."""
        asked = [q for q in questions if q.inferred and answers[q.id].columns is not None]
        found: dict[str, _Answer] = {}
        for at in range(0, len(asked), _BATCH):
            batch = asked[at : at + _BATCH]
            told = pipelined(self.session.connection, *([(b"", q.text, ())] for q in batch))
            for question, (results,) in zip(batch, told, strict=True):
                answer = answers[question.id]
                refused = next((result for result in results if result.status not in FINE), None)
                if refused is None:
                    found[question.id] = replace(answer, columns=columns_of(results[-1]))
                elif sqlstate_of(refused) == _OF_TWO:
                    found[question.id] = _Answer(error=message_of(refused))
        return found

    def _batch(self, batch: Sequence[Question]) -> list[_Answer]:
        """Ask about a batch, up to the first failure."""
        asks: list[Ask] = [b"BEGIN READ ONLY"]
        for number, question in enumerate(batch):
            asks += question.asks(f"parallelchange_{number}")
        ((begun,), *told), _ = pipelined(self.session.connection, [*asks, _LOCKS], [b"ROLLBACK", b"DEALLOCATE ALL"])
        if begun.status not in FINE:
            raise psycopg.OperationalError(message_of(begun))
        answers = []
        for number in range(len(batch)):
            answer = self._answer(*told[2 * number : 2 * number + 2])
            answers.append(answer)
            if answer.error is not None or _failed(answer.plan):
                return answers
        (locks,) = told[-1]
        if locks.status != ExecStatus.TUPLES_OK:
            raise psycopg.OperationalError(f"our own locks cannot be seen: {message_of(locks)}")
        more = locks.get_value(0, 0)
        if more and not self.on_copy:
            raise LockedMore(
                f"asking about recorded statements took {more.decode()}, and was ended at once",
                hint="please report it, with the statements that use it",
            )
        return answers

    def _answer(self, described: Sequence[PGresult], explained: Sequence[PGresult]) -> _Answer:
        for result in (*described, *explained):
            if sqlstate_of(result) in _OF_LOCKS:
                raise Busy(
                    f"a recorded statement could not be asked about: {message_of(result)}",
                    hint="somebody holds a lock for long; see pg_stat_activity, and run it again",
                )
        refused = next((result for result in described if result.status not in FINE), None)
        if refused is not None:
            return _Answer(error=message_of(refused))
        columns = columns_of(described[-1])
        (plan,) = explained
        if plan.status == ExecStatus.TUPLES_OK:
            return _Answer(None, columns, read_plan(plan.get_value(0, 0) or b"[]", self.storage))
        return _Answer(None, columns, self._unplanned(plan))

    def _unplanned(self, result: PGresult) -> PlanFact:
        state, said = sqlstate_of(result), message_of(result)
        if state in _OF_NULLS:
            return PlanFact(error=said, unasked="a parameter takes no NULL")
        if state == _OF_RIGHTS and not self.session.as_version:
            why = f"{said} to our own role; name the version's role in the change file, and grant it to ours"
            return PlanFact(error=said, untold=why)
        return PlanFact(error=said)


def _failed(plan: PlanFact | None) -> bool:
    return plan is None or plan.error is not None
