"""What our layers say of the same statements and the same DDL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.breakage import APPLICATION, Session, clone
from helpers.breakage_schema import APP
from helpers.breakage_uses import USES
from parallelchange.adapters.postgres.describing import describing
from parallelchange.adapters.postgres.execute import execute_all
from parallelchange.adapters.postgres.held import held
from parallelchange.adapters.postgres.log import LogEntry, json_entries, read_log
from parallelchange.adapters.postgres.statements import ask_all
from parallelchange.corpus import Corpus
from parallelchange.gates import execute, plan, prepare, shape
from parallelchange.gates.execute import Executed
from parallelchange.gates.prepare import StatementFact
from parallelchange.local.copy import copy_database
from parallelchange.local.postgres import EmbeddedPostgres
from parallelchange.model import GateResult, State, Verdict, combine
from parallelchange.recording import build

__all__ = [
    "LAYERS",
    "LOG",
    "VERSION",
    "Recording",
    "Run",
    "ask",
    "copied",
    "joined",
    "measure",
    "measure_change",
    "record",
    "verdicts",
]

VERSION = "v1"
RECORDED = 7
"""Times that each kind of statement was sent when it was recorded; the sixth is prepared by name."""
LAYERS = ("prepare", "shape", "plan", "execute", "live")
"""The gates of a rehearsal, and those of `verify` on the database itself, joined."""
LOG = {
    "log_destination": "jsonlog",
    "logging_collector": "on",
    "log_directory": "jsonlog",
    "log_statement": "all",
    "log_parameter_max_length": "-1",
    "lc_messages": "C",
}


@dataclass(frozen=True)
class Recording:
    """What was recorded of the old version.

    Args:
        corpus: All of it.
        ids: The statements of each use.
    """

    corpus: Corpus
    ids: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Run:
    """The layers on one copy in one state.

    Args:
        facts: What the server said of each statement.
        executed: What came of running them.
    """

    facts: Sequence[StatementFact]
    executed: tuple[Executed, ...]


def record(server: EmbeddedPostgres, source: str) -> Recording:
    """Have the old version work for a while, and make its corpus from the server's log, as `record` does."""
    with clone(server, source, "recording") as name:
        for use in USES:
            session = Session(server.url(name, APP), [use])
            for time in range(RECORDED):
                seen = session.send(use, time)
                assert not seen.error, f"{use.name}: {seen.error}"
            session.close()
        with describing(server.url(name)) as describe:
            log = read_log(_entries(server.data_dir), wanted=lambda entry: _wanted(entry, name), whole=True)
            corpus = build(VERSION, log.events, describe, where="tests").corpus
    ids: dict[int, set[str]] = {}
    for unit in corpus.units:
        ids.setdefault(unit.session, set()).update(step.statement for step in unit.steps)
    assert len(ids) == len(USES), f"of {len(USES)} kinds of statement {len(ids)} were recorded"
    return Recording(corpus, {use.name: frozenset(ids[number]) for number, use in enumerate(USES, 1)})


def _entries(data: Path) -> Iterator[LogEntry]:
    for path in sorted((data / "jsonlog").glob("*.json")):
        yield from json_entries(path.read_text(encoding="utf-8").splitlines())


def _wanted(entry: LogEntry, database: str) -> bool:
    return entry.get("application_name") == APPLICATION and entry.get("dbname") == database


def measure(url: str, corpus: Corpus) -> Run:
    """Let the layers look at a copy as it stands, as a rehearsal does.

    Args:
        url: The copy, as a superuser.
        corpus: What the version sends.
    """
    executed = execute_all(url, APPLICATION, corpus, role=APP)
    return Run(ask_all(url, corpus, role=APP, on_copy=True), executed)


def measure_change(url: str, corpus: Corpus, before: Run, change: Callable[[], None]) -> Run:
    """Let them look at it after a change, with a session that was there before it.

    Args:
        url: The copy, as a superuser.
        corpus: What the version sends.
        before: What they said before.
        change: Does it.
    """
    with held(url, corpus, APP) as holding:
        change()
        facts = holding.told(ask_all(url, corpus, role=APP, on_copy=True))
    return Run(facts, execute_all(url, APPLICATION, corpus, role=APP, before=before.executed))


def ask(url: str, corpus: Corpus) -> Sequence[StatementFact]:
    """Ask the database itself, as `verify` does, and execute nothing."""
    return ask_all(url, corpus, role=APP, on_copy=False)


def verdicts(ids: frozenset[str], before: Run, after: Run, live: Sequence[StatementFact]) -> dict[str, GateResult]:
    """What each layer says of some statements, as if the version sent no others; by the layer's name."""
    facts = [fact for fact in after.facts if fact.id in ids]
    asked = [fact for fact in live if fact.id in ids]
    on_live = (prepare.judge(VERSION, asked), shape.judge(VERSION, asked), plan.judge(VERSION, asked))
    plans = plan.plans(fact for fact in before.facts if fact.id in ids)
    ran, ran_before = (tuple(item for item in run.executed if item.id in ids) for run in (after, before))
    return {
        "prepare": prepare.judge(VERSION, facts),
        "shape": shape.judge(VERSION, facts),
        "plan": plan.judge(VERSION, facts, plans),
        "execute": execute.judge(execute.PhaseRun(VERSION, State.EXPANDED, ran, ran_before, "app")),
        "live": GateResult(
            "live", joined({r.gate: r for r in on_live}), tuple(finding for r in on_live for finding in r.findings)
        ),
    }


def joined(results: Mapping[str, GateResult]) -> Verdict:
    """The verdict of all layers, joined as the judge joins them."""
    return combine(result.verdict for result in results.values())


def copied(server: EmbeddedPostgres, source: str, name: str) -> None:
    """The copy that a rehearsal begins with."""
    url = server.create_database(name)
    copy_database(server.url(source), url, server.bin, roles=[APP])
