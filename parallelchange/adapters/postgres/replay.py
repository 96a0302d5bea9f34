"""Replaying recorded units of work inside one open transaction, as the sessions of a version would send them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from psycopg import sql
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.copying import copy_data, copy_target
from parallelchange.adapters.postgres.pipeline import message_of, sqlstate_of
from parallelchange.adapters.postgres.replay_sessions import Sessions
from parallelchange.corpus import Corpus, Recorded, Step, Unit
from parallelchange.errors import Unavailable
from parallelchange.gates.execute import Outcome
from parallelchange.gates.prepare import shown
from parallelchange.sqltext import Kind, opening, tokens

__all__ = ["Replay"]

_FINE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.EMPTY_QUERY)
_WRITES = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY")
_WRITTEN = b"SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_xact_user_tables"
_DEFERRED = """
SELECT DISTINCT n.nspname, c.conname FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
WHERE c.condeferred AND has_schema_privilege(n.oid, 'USAGE') ORDER BY 1, 2
"""
_ADDS_UP = re.compile(r"\b(?:count|sum|exists|bool_or|bool_and|every)\s*\(", re.IGNORECASE)
_CALLS = re.compile(r'(\w+)"?\s*\(')
_FUNCTIONS = """
SELECT DISTINCT proname FROM pg_proc
WHERE pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
"""
_NOT_INSIDE = frozenset({"25001", "2D000"})
"""active_sql_transaction, invalid_transaction_termination: it runs outside of transactions only."""
_AFTER_FAILURE = "25P02"
_FIRST_OF_USERS = 16384
"""FirstNormalObjectId: the oids below are the server's own."""
_MAKES = re.compile(r"\s*create\s+(?:or\s+replace\s+)?(?:function|procedure|extension)\b", re.IGNORECASE)
_TRANSACTION = frozenset({"begin", "start", "commit", "end", "abort", "rollback", "checkpoint"})
_OF_THE_SERVER = re.compile(
    r"\s*(?:set\s+(?:local\s+)?(?:transaction|transaction_\w+)\b|prepare\s+transaction\b|alter\s+system\b"
    r"|(?:create|drop)\s+(?:database|tablespace)\b|deallocate\b|vacuum\s*(?:\([^)]*\)|full|verbose|freeze|\s)*$)",
    re.IGNORECASE,
)
"""What has nothing to do with any schema, and what belongs to the protocol."""
_DISCARD = re.compile(r"\s*discard\s+(?:all|temp|temporary)\b", re.IGNORECASE)
_CONCURRENTLY = re.compile(r"(\s*(?:create|drop|reindex)\b[^'\"(]*?)\bconcurrently\b", re.IGNORECASE)
_OUTSIDE_FILE = re.compile(r"\b(?:to|from)\s+(?:program\b|[eE]?')", re.IGNORECASE)
_SAVEPOINT = re.compile(
    r'\s*(savepoint|release(?:\s+savepoint)?|rollback(?:\s+work|\s+transaction)?\s+to(?:\s+savepoint)?)\s+("[^"]+"|\w+)',
    re.IGNORECASE,
)
_PREPARE = re.compile(r'\s*prepare\s+("[^"]+"|\w+)', re.IGNORECASE)
_ON_COMMIT = re.compile(r"\bon\s+commit\s+(drop|delete\s+rows)\b", re.IGNORECASE)


class Replay:
    """The replay of a corpus on a session that is inside a transaction.

    Args:
        connection: The session; it must prepare nothing of its own.
        corpus: What is replayed.
        application_name: What the version's sessions call themselves: triggers tell it by that.
        role: Its role; None for the one we are.
        sent: What each COPY was given in the state before, in order, by statement id.
    """

    def __init__(
        self,
        connection: Connection,
        corpus: Corpus,
        application_name: str | None,
        role: str | None = None,
        sent: Mapping[str, Sequence[bytes | None]] | None = None,
    ) -> None:
        self.connection, self.corpus, self.pg = connection, corpus, connection.pgconn
        self.sessions = Sessions(connection, application_name, role)
        self._sent = {id_: list(given) for id_, given in (sent or {}).items()}
        self._oids: dict[str, int] = {}
        self._names: dict[tuple[int, int], str] = {}
        self._savepoints: list[str] = []
        self._on_commit: dict[int, str] = {}
        # By its last word: what is called is told by the words before a parenthesis.
        named = [str(name) for (name,) in connection.execute(_FUNCTIONS)]
        self._functions = {re.split(r"\W+", name.rstrip())[-1].lower() for name in named}
        self._makes_functions = any(_MAKES.match(statement.sql) for statement in corpus.statements)
        row = connection.execute("SELECT EXISTS (SELECT FROM pg_constraint WHERE condeferrable)").fetchone()
        alters = any("deferr" in statement.sql.lower() for statement in corpus.statements)
        self._deferrable = alters or bool(row and row[0])

    def unit(self, unit: Unit, *, until: int | None = None) -> list[Outcome]:
        """Run a unit in a savepoint, and end it as it was ended.

        Args:
            unit: The unit.
            until: Index of the last step to run; the unit is undone then. None for all of them.

        Raises:
            Unavailable: The session is lost.
        """
        self.sessions.enter(unit.session)
        self._do("SAVEPOINT parallelchange_unit")
        if self.pg.parameter_status(b"default_transaction_read_only") == b"on":
            # A default is for transactions that begin, and ours has begun; at the savepoint's end it is as it was.
            self._do("SET LOCAL transaction_read_only = on")
        self._savepoints.clear()
        outcomes: list[Outcome] = []
        failed = False
        for step in unit.steps if until is None else unit.steps[: until + 1]:
            recorded = self.corpus.by_id[step.statement]
            if _SAVEPOINT.match(recorded.sql):
                failed = failed and not recorded.sql.lstrip().lower().startswith("rollback")
            failed = failed or bool(step.sqlstate)
            outcomes.append(replace(self._step(recorded, step), recorded=step.sqlstate))
        # A transaction in which something failed is rolled back by its COMMIT.
        commits = unit.end == "auto" or (unit.end == "commit" and not failed)
        return self._end(unit, outcomes, commits=commits and until is None)

    def _end(self, unit: Unit, outcomes: list[Outcome], *, commits: bool) -> list[Outcome]:
        late = self._check_deferred()
        if commits and late is None:
            self._commit(unit)
        else:
            self._do("ROLLBACK TO SAVEPOINT parallelchange_unit")
            self.sessions.transaction_undone()
        self._do("RELEASE SAVEPOINT parallelchange_unit")
        if late is not None:
            last = max((i for i, o in enumerate(outcomes) if o.error is None and self._writes(unit, i)), default=-1)
            if commits:
                outcomes[last] = replace(outcomes[last], error=late.error, sqlstate=late.sqlstate)
            else:
                outcomes[last] = replace(outcomes[last], late=late.error)
        return outcomes

    def _writes(self, unit: Unit, index: int) -> bool:
        return self.corpus.by_id[unit.steps[index].statement].kind is not Kind.READ

    def _check_deferred(self) -> Outcome | None:
        """Have the deferred constraints checked now: the commit at which they would speak up never comes."""
        if not self._deferrable:
            return None
        result = self.pg.exec_(b"SET CONSTRAINTS ALL IMMEDIATE")
        return None if result.status in _FINE else self._refused(result)

    def _commit(self, unit: Unit) -> None:
        """What a COMMIT does that releasing a savepoint does not."""
        if any(_word(self.corpus.by_id[step.statement].sql) in ("declare", "fetch", "move") for step in unit.steps):
            for (name,) in self.connection.execute(
                "SELECT name FROM pg_cursors WHERE NOT is_holdable AND name <> ''"
            ).fetchall():
                self.sessions.attempt(sql.SQL("CLOSE {}").format(sql.Identifier(name)))
        for oid, does in self._on_commit.items():
            row = self.connection.execute("SELECT relname FROM pg_class WHERE oid = %s::int8::oid", (oid,)).fetchone()
            if row:
                verb = sql.SQL("DROP TABLE" if does == "drop" else "DELETE FROM")
                self.sessions.attempt(sql.SQL("{} pg_temp.{}").format(verb, sql.Identifier(row[0])))
        self._on_commit = {oid: does for oid, does in self._on_commit.items() if does != "drop"}
        if self._deferrable:
            names = [sql.Identifier(*row) for row in self.connection.execute(_DEFERRED).fetchall()]
            if names:
                self.sessions.attempt(sql.SQL("SET CONSTRAINTS {} DEFERRED").format(sql.SQL(", ").join(names)))
        self.sessions.transaction_ended()

    def _step(self, recorded: Recorded, step: Step) -> Outcome:
        text = recorded.text(step)
        if step.sqlstate == _AFTER_FAILURE:
            return Outcome(exempt=True)
        if control := _SAVEPOINT.match(text):
            return self._savepoint(text, control[1].lower(), control[2])
        if _DISCARD.match(text):
            self.sessions.discard()
            return Outcome()
        word = _word(text)
        if word in _TRANSACTION or _OF_THE_SERVER.match(text):
            if word == "deallocate":
                self._deallocate(text)
            return Outcome(exempt=True)
        if word == "copy" and _OUTSIDE_FILE.search(text):
            return Outcome(skipped="it reads or writes a file of the server, which is not done here")
        self.sessions.foresee(text, step.parameters(recorded))
        self._do("SAVEPOINT parallelchange_step")
        outcome = self._run(recorded, step, _CONCURRENTLY.sub(r"\1", text, count=1))
        if self.pg.transaction_status not in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            raise Unavailable(
                f"{shown(text)} of {self.corpus.version} ended the transaction or the session it was replayed in",
                hint="take it out of the corpus: it cannot be undone",
            )
        if outcome.error is not None or outcome.skipped or step.sqlstate:
            self._do("ROLLBACK TO SAVEPOINT parallelchange_step")
        self._do("RELEASE SAVEPOINT parallelchange_step")
        if outcome.error is None and not outcome.skipped:
            self._note(text, word)
        return outcome

    def _note(self, text: str, word: str) -> None:
        """Remember what outlives the transaction, and keep our own limits."""
        if word == "prepare" and (found := _PREPARE.match(text)):
            self.sessions.prepared(found[1], text)
        if word == "set" or "set_config" in text.lower():
            self.sessions.guard()
        if word == "reset" and "all" in text.lower():
            self.sessions.reset()
        if word == "create" and (found := _ON_COMMIT.search(text)):
            newest = "SELECT max(oid)::int8 FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'"
            row = self.connection.execute(newest).fetchone()
            if row and row[0]:
                self._on_commit[row[0]] = found[1].lower()

    def _savepoint(self, text: str, verb: str, name: str) -> Outcome:
        """A savepoint of the version's own; ours would end it, so it stands without."""
        key = name if name.startswith('"') else name.lower()
        if verb == "savepoint":
            self._savepoints.append(key)
        elif key not in self._savepoints:
            return Outcome(f"savepoint {name} does not exist", "3B001")
        else:
            at = len(self._savepoints) - 1 - self._savepoints[::-1].index(key)
            del self._savepoints[at + (0 if verb.startswith("release") else 1) :]
        self._do(text)
        return Outcome()

    def _deallocate(self, text: str) -> None:
        name = [token.text for token in tokens(text)][-1]
        self.sessions.prepared("" if name.lower() == "all" else name, None)
        self.sessions.attempt(text)

    def _run(self, recorded: Recorded, step: Step, text: str) -> Outcome:
        given = [None if value is None else value.encode() for value in step.parameters(recorded)]
        oids = [self._oid(type_) for type_ in recorded.types]
        sent: bytes | None = None
        target = ""
        if _word(text) == "copy" and re.search(r"\bfrom\s+stdin\b", text, re.IGNORECASE):
            queue = self._sent.get(recorded.id)
            sent = queue.pop(0) if queue else copy_data(self.connection, text)
            if sent is None:
                return Outcome(skipped="no row could be made that it would take")
            target = copy_target(self.connection, text)
        counts = self._may_write_unseen(recorded, text)
        before = self._written() if counts else 0
        result = self._exchange(self.pg.exec_params(text.encode(), given, oids or None), sent)
        if result.status not in _FINE:
            return replace(self._refused(result), sent=sent)
        written = self._written() - before if counts else None
        command = (result.command_status or b"").decode().split()
        rows = int(command[-1]) if command and command[-1].isdigit() else None
        idle = bool(command) and command[0] in _WRITES and rows == 0 and not _copies_out(text)
        idle = idle or (recorded.kind is Kind.WRITE and _word(text) == "with" and written == 0)
        answer = _answer(result) if recorded.kind is Kind.READ and _ADDS_UP.search(text) else None
        columns = self._columns(result)
        return Outcome(rows=rows, written=written, columns=columns, answer=answer, idle=idle, sent=sent, target=target)

    def _may_write_unseen(self, recorded: Recorded, text: str) -> bool:
        """Whether it may write rows that its answer does not count."""
        word = _word(text)
        if word in ("call", "do", "execute") or (word == "with" and recorded.kind is Kind.WRITE):
            return True
        calls = {name.lower() for name in _CALLS.findall(text)} if word in ("select", "with", "values") else set()
        return bool(calls) and (self._makes_functions or not calls.isdisjoint(self._functions))

    def _exchange(self, result: PGresult, sent: bytes | None) -> PGresult:
        """Give or take what a COPY goes on with."""
        if result.status == ExecStatus.COPY_IN:
            self.pg.nonblocking = 0
            self.pg.put_copy_data(sent or b"")
            self.pg.put_copy_end()
        elif result.status == ExecStatus.COPY_OUT:
            while self.pg.get_copy_data(0)[0] > 0:
                pass
        else:
            return result
        last = result
        while (more := self.pg.get_result()) is not None:
            last = more
        return last

    def _refused(self, result: PGresult) -> Outcome:
        if self.pg.status != ConnStatus.OK:
            raise Unavailable("the copy's server ended the session in the middle of the replay")
        state = sqlstate_of(result)
        if state in _NOT_INSIDE:
            return Outcome(skipped="it cannot run inside a transaction, and nothing is committed here")
        lines = message_of(result).splitlines() or ["no message"]
        return Outcome(lines[0], state)

    def _written(self) -> int:
        result = self.pg.exec_(_WRITTEN)
        return int(result.get_value(0, 0) or 0) if result.status in _FINE else 0

    def _columns(self, result: PGresult) -> tuple[str, ...]:
        return tuple(
            f"{(result.fname(i) or b'').decode(errors='replace')} {self._name(result.ftype(i), result.fmod(i))}"
            for i in range(result.nfields)
        )

    def _name(self, oid: int, mod: int) -> str:
        if (oid, mod) not in self._names:
            row = self.connection.execute("SELECT format_type(%s::int8::oid, %s)", (oid, mod)).fetchone()
            self._names[oid, mod] = str(row[0]) if row else "?"
        return self._names[oid, mod]

    def _oid(self, type_: str) -> int:
        """A type's oid; only those of the server itself are kept, for a replay may make types and undo them."""
        if type_ in self._oids:
            return self._oids[type_]
        row = self.connection.execute("SELECT to_regtype(%s)::oid::int8", (type_,)).fetchone()
        oid = int(row[0]) if row and row[0] else 0
        if 0 < oid < _FIRST_OF_USERS:
            self._oids[type_] = oid
        return oid

    def _do(self, text: str) -> None:
        result = self.pg.exec_(text.encode())
        if result.status not in _FINE:
            raise Unavailable(f"the replay of {self.corpus.version} cannot go on: {message_of(result)}")


def _word(text: str) -> str:
    return "".join(opening(text, 1))


def _answer(result: PGresult) -> str | None:
    """The values of a result of one row."""
    if result.ntuples != 1:
        return None
    values = (result.get_value(0, column) for column in range(result.nfields))
    return " ".join("NULL" if value is None else value.decode(errors="replace") for value in values)


def _copies_out(text: str) -> bool:
    return _word(text) == "copy" and re.search(r"\bto\s+stdout\b", text, re.IGNORECASE) is not None
