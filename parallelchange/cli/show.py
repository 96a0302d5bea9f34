"""Showing plans, decisions and gates: tables for people, one JSON document for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import click

from parallelchange.model import (
    Evidence,
    Finding,
    GateResult,
    Severity,
    State,
    Verdict,
    combine,
    format_weight,
    to_json,
)
from parallelchange.rollout.decide import Decision, Kind
from parallelchange.rollout.matrix import Cell, Standing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "console",
    "decision_document",
    "findings_of",
    "gate_table",
    "matrix_document",
    "matrix_table",
    "note",
    "print_json",
    "show_decision",
    "show_evidence",
    "show_findings",
]

_LOG_WIDTH = 220
_STANDING = {Standing.PROVEN: "green", Standing.FAILED: "red", Standing.STALE: "yellow", Standing.UNKNOWN: "yellow"}
_COLOUR = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.UNKNOWN: "yellow"}


def console(*, err: bool = False) -> Console:
    """A console; plain text when it is no terminal."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    # A log has no edge to fold at.
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _LOG_WIDTH)


def note(text: str) -> None:
    """A message for people, on stderr: stdout is for results."""
    click.echo(text, err=True)


def print_json(document: Any) -> None:
    """The one JSON document."""
    click.echo(json.dumps(to_json(document), indent=2, ensure_ascii=False, default=str))


def findings_of(results: Iterable[GateResult]) -> list[Finding]:
    """All findings."""
    return [finding for result in results for finding in result.findings]


def decision_document(change: str, decision: Decision, *, verdict: Verdict, weight: int | None) -> dict[str, Any]:
    """A decision as JSON."""
    return {
        "change": change,
        "verdict": verdict,
        "decision": decision.kind,
        "act": decision.act,
        "why": decision.why,
        "weight": None if weight is None else format_weight(weight),
        "gates": decision.results,
        "findings": [*decision.findings, *findings_of(decision.results)],
    }


def gate_table(rows: Iterable[tuple[str, GateResult]], *, title: str = "") -> Table:
    """Gates with their verdicts; `rows` pairs a state or stage with a result."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for name in ("gate", "of", "verdict", "why"):
        table.add_column(name, overflow="fold")
    for result, whose in _merged(rows):
        why = result.findings[0].message if result.findings else _measured(result) if len(whose) == 1 else ""
        verdict = Text(result.verdict.value, style=_COLOUR[result.verdict])
        table.add_row(result.gate, ", ".join(dict.fromkeys(whose)), verdict, Text(why[:300]))
    return table


def _merged(rows: Iterable[tuple[str, GateResult]]) -> list[tuple[GateResult, list[str]]]:
    """Passing verdicts of one gate make one line; each of the others has its own."""
    lines: list[tuple[GateResult, list[str]]] = []
    passing: dict[str, list[str]] = {}
    for when, result in rows:
        whose = " ".join(part for part in (result.version or "data", when) if part)
        heeded = [finding for finding in result.findings if finding.severity is not Severity.INFO]
        passed = result.verdict is Verdict.PASS and not heeded
        if passed and result.gate in passing:
            passing[result.gate].append(whose)
            continue
        lines.append((result, [whose]))
        if passed:
            passing[result.gate] = lines[-1][1]
    return lines


def matrix_table(cells: Sequence[Cell]) -> Table:
    """The matrix: versions down, states across, each with the layers that do not pass; `-` where none lives."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    states = (State.BASE, State.EXPANDED, State.CONTRACTED)
    for name in ("version", *states):
        table.add_column(name, overflow="fold")
    at = {(cell.version, cell.state): cell for cell in cells}
    for version in dict.fromkeys(cell.version for cell in cells):
        table.add_row(version, *(_cell(at.get((version, state))) for state in states))
    return table


def _cell(cell: Cell | None) -> Text:
    from rich.text import Text

    if cell is None:
        return Text("-")
    told = Text(cell.standing, style=_STANDING[cell.standing])
    for word in dict.fromkeys(word for word in cell.layers.values() if word != Verdict.PASS):
        told.append(f"\n{word}: {', '.join(n for n, w in cell.layers.items() if w == word)}", style="none")
    return told


def matrix_document(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The matrix as JSON."""
    return [
        {"version": cell.version, "state": cell.state, "cell": cell.standing, "layers": dict(cell.layers)}
        for cell in cells
    ]


def _measured(result: GateResult) -> str:
    shown = []
    for name, value in result.measured.items():
        if value is None or name in ("fingerprint", "state", "detail", "plans"):
            continue
        if isinstance(value, dict):
            shown += [f"{name} {count} ({what})" for what, count in value.items()]
            continue
        shown.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(shown)


def show_findings(findings: Iterable[Finding]) -> None:
    """Each finding on stderr, and after those that follow each other with the same remedy that one, once."""
    told = [finding for finding in findings if finding.severity is not Severity.INFO]
    for finding, after in zip_longest(told, told[1:]):
        place = f" ({finding.where})" if finding.where else ""
        note(f"{finding.severity}: {finding.id}{place}: {finding.message}")
        if finding.remedy and (after is None or after.remedy != finding.remedy):
            note(f" remedy: {finding.remedy}")


def show_decision(change: str, decision: Decision, *, as_json: bool, weight: int | None, passed: bool) -> int:
    """Print a decision and give the exit code."""
    verdict = (
        Verdict.PASS if passed else (decision.verdict if decision.verdict is not Verdict.PASS else Verdict.UNKNOWN)
    )
    if as_json:
        print_json(decision_document(change, decision, verdict=verdict, weight=weight))
    else:
        if decision.results:
            console().print(gate_table(("", result) for result in decision.results))
        word = "done" if decision.kind is Kind.DONE else verdict
        click.echo(f"{change}: {word}: {decision.why}")
        found = [*decision.findings, *findings_of(decision.results)]
        # What does not block is worth a word as well.
        show_findings(f for f in found if not passed or f.severity is Severity.WARNING)
    return 0 if passed else 3 if decision.unavailable else 1


def show_evidence(change: str, what: str, evidence: Sequence[Evidence], cells: Sequence[Cell], *, as_json: bool) -> int:
    """Print what was measured, the matrix that it is part of, and give the exit code."""
    results = [item.result for item in evidence]
    verdict = combine(result.verdict for result in results)
    findings = list(dict.fromkeys(findings_of(results)))
    if as_json:
        gates = [{"state": item.state, **to_json(item.result)} for item in evidence]
        document = {"change": change, "verdict": verdict, "gates": gates, "findings": findings}
        print_json(document | {"matrix": matrix_document(cells)})
    else:
        console().print(gate_table((item.state, item.result) for item in evidence))
        click.echo()
        console().print(matrix_table(cells))
        click.echo(f"{change}: {what}: {verdict}")
        show_findings(findings)
    return 0 if verdict is Verdict.PASS else 1
