"""From what was seen sent to a corpus: statements told apart, redacted, described, and thinned out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from parallelchange.corpus import Corpus, Recorded, Step, Unit
from parallelchange.recording.describing import Describe, Draft, Known, describe_all
from parallelchange.recording.drivers import not_the_apps
from parallelchange.recording.redact import LONGEST, Redaction
from parallelchange.recording.thinning import thin
from parallelchange.recording.transactions import Event, Sent, Transaction, transactions
from parallelchange.sqltext import Kind, Template, kind_of, opening, template, tokens

__all__ = ["Recording", "build"]

# Of these the literals are values; of other utility statements they are part of what is defined.
_WITH_VALUES = frozenset({"set", "notify", "fetch", "move", "call"})
_SAVEPOINTS = (("savepoint",), ("release",), ("rollback",))
_LOOKUPS = ("search_path", "role", "authorization")


@dataclass(frozen=True)
class Recording:
    """A corpus, and what was done to make it.

    Args:
        corpus: The corpus.
        redacted: What was replaced: rule to count.
        left_out: What is not in it: reason to count.
    """

    corpus: Corpus
    redacted: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


def build(
    version: str, events: Iterable[Event], describe: Describe, *, where: str = "", redaction: Redaction | None = None
) -> Recording:
    """Make a corpus.

    Args:
        version: The version's name.
        events: What was sent, in order.
        describe: Describes statements on the schema as it was at the end.
        where: Where it was recorded, for events that do not say.
        redaction: What must not reach the file; None for the rules that come with us.
    """
    work = _Work(redaction or Redaction(), where)
    for transaction in transactions(events):
        work.take(transaction)
    describe_all(list(work.known.values()), work.drafts, describe)
    return work.finished(version)


class _Work:
    def __init__(self, redaction: Redaction, where: str) -> None:
        self.redaction = redaction
        self.where = where
        self.known: dict[tuple[str, int | None, tuple[str, ...]], Known] = {}
        self.drafts: list[Draft] = []
        self.left_out: Counter[str] = Counter()
        self._sessions: dict[str, int] = {}
        self._where: dict[str, str] = {}
        self._lookup: dict[str, tuple[str, ...]] = {}

    def take(self, transaction: Transaction) -> None:
        """Take one transaction in."""
        number = self._sessions.setdefault(transaction.session, len(self._sessions) + 1)
        draft = Draft(number, [], transaction.end)
        before = self._lookup.get(transaction.session, ())
        for sent in self._the_apps(transaction):
            self._step(draft, transaction.session, sent)
        if transaction.end == "rollback":
            self._lookup[transaction.session] = before
        else:
            kept = self._lookup.get(transaction.session, ())
            self._lookup[transaction.session] = tuple(s for s in kept if opening(s, 2) != ("set", "local"))
        if draft.steps:
            self.drafts.append(draft)

    def _the_apps(self, transaction: Transaction) -> list[Sent]:
        kept = []
        for sent in transaction.sent:
            reason = not_the_apps(sent.sql)
            self.left_out[reason] += bool(reason)
            if not reason:
                kept.append(sent)
        # A driver puts savepoints around its own questions.
        return [] if all(opening(sent.sql, 1) in _SAVEPOINTS for sent in kept) else kept

    def _step(self, draft: Draft, session: str, sent: Sent) -> None:
        lookup = self._lookup.get(session, ())
        cut, bound = self._cut(sent)
        told = sent.where or self.where
        if told not in self._where:  # a command line may hold a password
            self._where[told] = self.redaction.value(told)[:LONGEST]
        where = self._where[told]
        new = Known(cut.sql, bound, sent.types, cut.literals, lookup, where)
        known = self.known.setdefault((cut.sql, bound, sent.types), new)
        known.prepared |= sent.prepared
        known.worked |= not sent.sqlstate
        if bound is None:
            self.left_out["sendings whose parameters were not told"] += 1
            return
        values = self.redaction.bound(cut.sql, sent.values or ()) if bound else cut.literals
        draft.steps.append((known, values, sent.sqlstate))
        if _looks_up(sent.sql) and not sent.sqlstate and not bound:
            gone = opening(sent.sql, 1) == ("reset",)
            self._lookup[session] = () if gone else (*self._lookup.get(session, ()), known.text)

    def _cut(self, sent: Sent) -> tuple[Template, int | None]:
        """The statement without its secrets and, when it has no parameters, its literals; how many were bound."""
        values = kind_of(sent.sql) is not Kind.UTILITY or not _WITH_VALUES.isdisjoint(opening(sent.sql, 1))
        sql = self.redaction.statement(sent.sql, shorten=values)
        if sent.values:
            return Template(sql, ()), len(sent.values)
        if any(token.kind == "parameter" for token in tokens(sql)):
            return Template(sql, ()), None
        return (template(sql) if values else Template(sql, ())), 0

    def finished(self, version: str) -> Recording:
        """The corpus, once everything is described."""
        recorded: dict[int, Recorded] = {}
        statements: dict[str, Recorded] = {}
        for (_, _, declared), known in self.known.items():
            if known.refused and not known.worked:
                self.left_out["statements that the server never took"] += 1
                continue
            if known.refused and known.bound is None:  # it can neither be prepared nor run
                self.left_out["statements that cannot be prepared as they were told, without values"] += 1
                continue
            types = known.types if known.bound is None else (*known.types, *["unknown"] * known.bound)[: known.bound]
            inferred = bool(types) and not declared
            item = Recorded(known.sql, types, known.columns, known.prepared, known.where, known.unasked, inferred)
            first = statements.setdefault(item.id, item)
            recorded[id(known)] = first
            if item.prepared and not first.prepared:
                statements[item.id] = item
        units = [unit for draft in self.drafts if (unit := self._unit(draft, recorded)).steps]
        kept, cut = thin(units, statements)
        self.left_out.update(cut)
        corpus = Corpus(version, tuple(sorted(statements.values(), key=lambda item: (item.sql, item.types))), kept)
        return Recording(corpus, dict(+self.redaction.counts), dict(sorted((+self.left_out).items())))

    def _unit(self, draft: Draft, recorded: Mapping[int, Recorded]) -> Unit:
        steps = []
        for known, values, sqlstate in draft.steps:
            statement = recorded.get(id(known))
            if statement is None:
                continue
            if known.bound and len(values) != len(statement.types):
                self.left_out["sendings with another number of parameters"] += 1
                continue
            kept = self.redaction.shorten(values, statement.types) if known.bound else values
            steps.append(Step(statement.id, kept, sqlstate))
        return Unit(draft.session, tuple(steps), draft.end)


def _looks_up(sql: str) -> bool:
    """Whether it sets what decides which table a name means, or who asks."""
    words = opening(sql, 3)
    if words[:1] == ("select",):
        return "set_config" in sql.lower() and any(name in sql.lower() for name in _LOOKUPS)
    return words[:1] in (("set",), ("reset",)) and any(name in words[1:] for name in (*_LOOKUPS, "all"))
