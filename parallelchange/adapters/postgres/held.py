"""A session that stays open while the schema changes, as the version's own do, and keeps its settings and statements.

Only the server knows what it compares when a prepared statement is used again: columns and types, but collations too,
and whether there still is what it refers to. So it is asked, on a copy, by a session that was open before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import psycopg

from parallelchange.adapters.postgres.askable import unasked
from parallelchange.adapters.postgres.asking import asking_session
from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.pipeline import Ask, message_of, pipelined, sqlstate_of
from parallelchange.adapters.postgres.statements import Question, questions
from parallelchange.corpus import Corpus
from parallelchange.errors import Unavailable
from parallelchange.gates.prepare import StatementFact

__all__ = ["Held", "held"]


class Held:
    """The session.

    Args:
        connection: The session.
        asked: What it has prepared; the place of each is in its name.
        others: What it has not, and will send anew.
    """

    def __init__(self, connection: Connection, asked: Sequence[Question], others: Sequence[Question] = ()) -> None:
        self.connection, self.asked, self.others = connection, asked, others
        told = self._ask([q.asks(_name(number)) for number, q in enumerate(asked)])
        self._fine = {q.id for q, error in zip(asked, told, strict=True) if error is None}

    def told(self, facts: Sequence[StatementFact]) -> list[StatementFact]:
        """Facts of the state now, with what such a session says of the statements.

        Raises:
            Unavailable: The session was lost.
        """
        found = self._ask([q.asks(_name(number))[1:] for number, q in enumerate(self.asked)])
        broken = {q.id: error for q, error in zip(self.asked, found, strict=True) if error and q.id in self._fine}
        # What it prepares only now is looked up by the settings that it was opened with.
        anew = self._ask([[(b"", q.text, q.types)] for q in self.others])
        broken |= {q.id: error for q, error in zip(self.others, anew, strict=True) if error}
        # What a new session is told as well is said already.
        return [
            fact if fact.error or (fact.plan and fact.plan.error) else replace(fact, held=broken.get(fact.id, ""))
            for fact in facts
        ]

    def _ask(self, segments: Sequence[Sequence[Ask]]) -> list[str | None]:
        try:
            told = pipelined(self.connection, *segments) if segments else []
        except psycopg.OperationalError as lost:
            raise Unavailable(f"the session that held prepared statements on the copy was lost: {lost}") from lost
        errors = []
        for results in told:
            refused = next((r for part in results for r in part if sqlstate_of(r)), None)
            errors.append(message_of(refused) if refused else None)
        return errors


def _name(number: int) -> str:
    return f"parallelchange_held_{number}"


@contextmanager
def held(url: str, corpus: Corpus, role: str | None) -> Iterator[Held]:
    """Prepare, on a session that stays open, what the version's sessions prepare.

    Args:
        url: The copy.
        corpus: What the version sends.
        role: The version's role; None for ours.

    Raises:
        Unavailable: The copy does not answer, or has no such role.
    """
    with asking_session(url, role) as session:
        left = unasked(corpus, on_copy=True)
        asked = [statement for statement in corpus.statements if statement.id not in left]
        prepared, others = (
            questions(session.connection, corpus, [s for s in asked if s.prepared is wanted])
            for wanted in (True, False)
        )
        yield Held(session.connection, prepared, others)
