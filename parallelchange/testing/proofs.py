"""Gates as assertions: what a rehearsal would say, said by a test of the app."""

from __future__ import annotations

from collections.abc import Sequence

from parallelchange.adapters.postgres.execute import execute_all
from parallelchange.adapters.postgres.statements import ask_all
from parallelchange.change import Version
from parallelchange.corpus import read_corpus
from parallelchange.gates import execute, laws, plan, prepare, shape
from parallelchange.gates.execute import Executed
from parallelchange.gates.laws import LawFact
from parallelchange.model import GateResult, State, Verdict

__all__ = ["prove_laws", "prove_statements", "run_statements"]


def prove_laws(facts: Sequence[LawFact]) -> None:
    """Demand that every law holds.

    Raises:
        AssertionError: One does not, or could not be measured.
    """
    __tracebackhide__ = True  # pytest shows the line of the test, not ours
    _demand([laws.judge(facts)])


def prove_statements(url: str, version: Version, state: State, before: tuple[Executed, ...] | None) -> None:
    """Demand that a version's recorded statements work.

    Args:
        url: A scratch database: the statements are executed there.
        version: The version.
        state: State of its schema.
        before: What `run_statements` gave in the state before, where the version could run in that.

    Raises:
        AssertionError: One of them does not, or nothing shows that it does.
        InvalidFile: The corpus cannot be used.
    """
    __tracebackhide__ = True
    facts = None
    if version.statements is not None:
        facts = ask_all(url, read_corpus(version.statements, version.name), role=version.role, on_copy=True)
    # In an app's own tests the role that runs them is the one there is.
    role = version.role or "ours"
    run = execute.PhaseRun(version.name, state, run_statements(url, version, before), before, role)
    asked = [gate.judge(version.name, facts) for gate in (prepare, shape, plan)]
    _demand([*asked, execute.judge(run)])


def run_statements(url: str, version: Version, before: tuple[Executed, ...] | None = None) -> tuple[Executed, ...]:
    """Execute a version's recorded statements, all of it rolled back.

    Args:
        url: A scratch database.
        version: The version; one without a corpus has none.
        before: What it gave in the state before: the same rows are then given to each COPY.

    Raises:
        InvalidFile: The corpus cannot be used.
    """
    if version.statements is None:
        return ()
    corpus = read_corpus(version.statements, version.name)
    return execute_all(url, version.application_name, corpus, role=version.role, before=before)


def _demand(results: Sequence[GateResult]) -> None:
    """Raise for what does not pass; what is unknown does not pass either."""
    __tracebackhide__ = True
    lines = []
    for result in results:
        if result.verdict is Verdict.PASS:
            continue
        lines.append(f"gate `{result.gate}` says {result.verdict}:")
        lines += [f"  {finding.where}: {finding.message}" for finding in result.findings]
        lines += sorted({f"  remedy: {finding.remedy}" for finding in result.findings if finding.remedy})
    if lines:
        raise AssertionError("\n".join(lines))
