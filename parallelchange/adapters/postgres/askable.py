"""Which recorded statements a database can be asked about without running anything."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.corpus import Corpus, Recorded, Step
from parallelchange.sqltext import Kind, tokens

__all__ = ["ANYTHING", "locking_names", "unasked"]

ANYTHING = "*"
"""Stands among the names of what locks for what a statement can use without naming it: an operator, a cast."""

_WRITES = "it writes, or locks rows: it is proven on a copy of this very schema"
_UTILITY = "it cannot be prepared: it is proven by running it on a copy"
_TEMPORARY = "it uses a temporary table of its session's own: it is proven by running it on a copy"
_PATH = "its session sets search_path: it is proven by running it on a copy"
_LOCKS = "what it uses may take stronger locks than ACCESS SHARE: it is proven on a copy of this very schema"

# The planner parses the body of an SQL function to put it in the place of its call, and the parser locks what the body
# writes to; the rewriter does so with row locks of a view or a policy (its nodes are read as text: no function tells).
_FUNCTIONS = """
SELECT p.oid::int8, p.proname::text, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) FROM pg_proc p
JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE l.lanname = 'sql' AND n.nspname <> 'pg_catalog' AND n.nspname <> 'information_schema'
"""
_USES = """
WITH RECURSIVE used(class, id) AS (
  SELECT 'pg_proc'::regclass::oid, unnest(%s::oid[])
  UNION SELECT 'pg_class'::regclass, ev_class FROM pg_rewrite
    WHERE oid >= 16384 AND ev_action::text LIKE '%%:rowMarks (%%'
  UNION SELECT 'pg_class'::regclass, polrelid FROM pg_policy WHERE polqual::text LIKE '%%:rowMarks (%%'
  UNION SELECT coalesce(o.class, d.classid), coalesce(o.id, d.objid)
  FROM used u JOIN pg_depend d ON d.refclassid = u.class AND d.refobjid = u.id AND d.deptype <> 'i'
  CROSS JOIN LATERAL (
    SELECT (SELECT 'pg_class'::regclass::oid WHERE d.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass,
        'pg_constraint'::regclass, 'pg_class'::regclass)) AS class,
      CASE d.classid WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite w WHERE w.oid = d.objid)
        WHEN 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy p WHERE p.oid = d.objid)
        WHEN 'pg_constraint'::regclass THEN (SELECT conrelid FROM pg_constraint c WHERE c.oid = d.objid)
        WHEN 'pg_class'::regclass THEN (SELECT coalesce(i.indrelid, d.objid) FROM (SELECT) one
          LEFT JOIN pg_index i ON i.indexrelid = d.objid) END AS id
  ) o
  WHERE d.classid NOT IN ('pg_attrdef'::regclass, 'pg_trigger'::regclass)
    AND NOT (d.classid = 'pg_constraint'::regclass
             AND (SELECT contype FROM pg_constraint c WHERE c.oid = d.objid) <> 'c')
)
SELECT DISTINCT CASE class WHEN 'pg_class'::regclass THEN (SELECT relname::text FROM pg_class WHERE oid = id)
  WHEN 'pg_proc'::regclass THEN (SELECT proname::text FROM pg_proc WHERE oid = id) ELSE '*' END FROM used
"""
_TEMPORARY_INTO = re.compile(r"\binto\b.*\btemp|set_config", re.IGNORECASE | re.DOTALL)
_INSERTS = ("insert", "merge")
_LOCKING = frozenset({"insert", "update", "delete", "merge", "into", "share", "lock"})


def locking_names(connection: Connection) -> frozenset[str]:
    """Names of functions, views and tables through which a statement may lock more than its own words say."""
    functions = [(oid, name, _names(body or "")) for oid, name, body in connection.execute(_FUNCTIONS)]
    found = {oid for oid, _, body in functions if not _LOCKING.isdisjoint(body)}
    named = {name for oid, name, _ in functions if oid in found}
    while more := {oid for oid, _, body in functions if oid not in found and not named.isdisjoint(body)}:
        found |= more
        named |= {name for oid, name, _ in functions if oid in more}
    return frozenset(name for (name,) in connection.execute(_USES, (sorted(found),)) if name)


@dataclass(frozen=True)
class _Own:
    """What a session has made or set for itself.

    Args:
        tables: Its temporary tables, by name.
        path: Whether it has set its search_path.
    """

    tables: frozenset[str] = frozenset()
    path: bool = False

    def why(self, names: AbstractSet[str]) -> str:
        """Why a statement with these names in it means what it means in this session only."""
        return _PATH if self.path else _TEMPORARY if not self.tables.isdisjoint(names) else ""


@dataclass
class _Session:
    lasting: _Own = field(default_factory=_Own)
    unit: _Own = field(default_factory=_Own)


def unasked(corpus: Corpus, *, on_copy: bool, locking: AbstractSet[str] = frozenset()) -> dict[str, str]:
    """Statements that are not asked about, with the reason, by their ids.

    Args:
        corpus: What the version sends.
        on_copy: Whether the database is a scratch copy.
        locking: As `locking_names` gives them.
    """
    own = _of_their_sessions(corpus)
    found = {}
    for statement in corpus.statements:
        why = statement.unasked or own.get(statement.id, "")
        if statement.kind is Kind.UTILITY:
            why = _UTILITY
        elif statement.kind is not Kind.READ and not on_copy:
            why = why or _WRITES
        elif locking and not on_copy and (ANYTHING in locking or not locking.isdisjoint(_names(statement.sql))):
            why = why or _LOCKS
        if why:
            found[statement.id] = why
    return found


def _of_their_sessions(corpus: Corpus) -> Mapping[str, str]:
    """Statements that were never sent but where the session had made what they mean."""
    sessions: dict[int, _Session] = {}
    reasons: dict[str, str] = {}
    for unit in corpus.units:
        session = sessions.setdefault(unit.session, _Session())
        before, session.unit = session.lasting, _Own()
        for step in unit.steps:
            statement = corpus.by_id[step.statement]
            own = _joined(session)
            why = own.why(_names(statement.sql)) if own != _Own() else ""
            reasons[statement.id] = why and reasons.get(statement.id, why)
            if not step.sqlstate:
                _learn(session, statement, step)
        if unit.end == "rollback":
            session.lasting = before
    return {id_: why for id_, why in reasons.items() if why}


def _joined(session: _Session) -> _Own:
    return _Own(session.lasting.tables | session.unit.tables, session.lasting.path or session.unit.path)


def _learn(session: _Session, statement: Recorded, step: Step) -> None:
    """Take in what a step has made or set."""
    if statement.kind is Kind.READ and "set_config" not in statement.sql.lower():
        return
    if statement.kind is Kind.WRITE and not _TEMPORARY_INTO.search(statement.sql):
        return
    words = [_plain(token.text) for token in tokens(statement.text(step)) if token.kind in ("word", "quoted", "string")]
    first, *rest = words or [""]
    lasting = session.lasting
    if first == "discard" and not {"all", "temp", "temporary"}.isdisjoint(rest):
        session.lasting, session.unit = _Own(), _Own()
    elif "search_path" in words or (first == "set" and "schema" in rest[:2]):
        if rest[:1] == ["local"]:
            session.unit = replace(session.unit, path=True)
        else:
            undone = first == "reset" or rest[-1:] == ["default"]
            session.lasting = replace(lasting, path=not undone)
    elif made := _temporary(words):
        if {"commit", "drop"} <= set(rest):
            session.unit = replace(session.unit, tables=session.unit.tables | {made})
        else:
            session.lasting = replace(lasting, tables=lasting.tables | {made})
    elif first == "drop":
        session.lasting = replace(lasting, tables=lasting.tables - frozenset(rest))


def _temporary(words: Sequence[str]) -> str:
    """The temporary table, view or sequence that a statement makes; empty when it makes none."""
    at = words.index("into") + 1 if "into" in words and words[0] != "create" else 1
    while at < len(words) and words[at] in ("local", "global", "or", "replace", "recursive"):
        at += 1
    if at >= len(words) or words[at] not in ("temp", "temporary") or words[0] in _INSERTS:
        return ""
    skipped = {"table", "view", "sequence", "recursive", "if", "not", "exists", "pg_temp"}
    return next((word for word in words[at + 1 :] if word not in skipped), "")


def _names(sql: str) -> frozenset[str]:
    return frozenset(_plain(token.text) for token in tokens(sql) if token.kind in ("word", "quoted"))


def _plain(text: str) -> str:
    """A name as the catalog has it."""
    if text[:1] in "\"'":
        return text[1:-1].replace(text[0] * 2, text[0])
    return text.lower()
