"""Showing plans, decisions and gates: tables for people, one JSON document for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from parallelchange.model import Evidence, Finding, GateResult, Severity, Verdict, combine, format_weight, to_json
from parallelchange.rollout.decide import Decision, Kind

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "console",
    "decision_document",
    "findings_of",
    "gate_table",
    "note",
    "print_json",
    "show_decision",
    "show_evidence",
    "show_findings",
]

_LOG_WIDTH = 220
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
    for when, result in rows:
        why = result.findings[0].message if result.findings else _measured(result)
        whose = " ".join(part for part in (result.version or "data", when) if part)
        verdict = Text(result.verdict.value, style=_COLOUR[result.verdict])
        table.add_row(result.gate, whose, verdict, Text(why[:300]))
    return table


def _measured(result: GateResult) -> str:
    shown = []
    for name, value in result.measured.items():
        if value is None or name in ("fingerprint", "state", "detail", "plans"):
            continue
        if isinstance(value, dict):
            shown += [f"{count} not: {what}" for what, count in value.items()]
            continue
        shown.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(shown)


def show_findings(findings: Iterable[Finding]) -> None:
    """Each finding with its remedy, on stderr."""
    for finding in findings:
        if finding.severity is Severity.INFO:
            continue
        place = f" ({finding.where})" if finding.where else ""
        note(f"{finding.severity}: {finding.id}{place}: {finding.message}")
        if finding.remedy:
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


def show_evidence(change: str, what: str, evidence: Sequence[Evidence], *, as_json: bool) -> int:
    """Print what was measured and give the exit code."""
    results = [item.result for item in evidence]
    verdict = combine(result.verdict for result in results)
    findings = list(dict.fromkeys(findings_of(results)))
    if as_json:
        cells = [{"state": item.state, **to_json(item.result)} for item in evidence]
        print_json({"change": change, "verdict": verdict, "gates": cells, "findings": findings})
    else:
        console().print(gate_table((item.state, item.result) for item in evidence))
        click.echo(f"{change}: {what}: {verdict}")
        show_findings(findings)
    return 0 if verdict is Verdict.PASS else 1
