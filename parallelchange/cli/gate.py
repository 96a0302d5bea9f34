"""`parallelchange gate`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parallelchange.cli import options

if TYPE_CHECKING:
    from parallelchange.rollout.decide import Decision

__all__ = ["command"]

_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that no XML document may hold; a message may quote a statement that has some."""
_INSTEAD = "\N{REPLACEMENT CHARACTER}"


@click.command("gate", short_help="May traffic advance?")
@options.change
@options.weight
@options.database_url
@options.as_json
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write a JUnit report.")
def command(change: str, to: int, database_url: str | None, as_json: bool, junit: Path | None) -> int:
    """Say whether traffic may advance to W: exit 0 only when every gate passes.

    The approval is kept in the ledger: whoever then sets the weight to W, and to nothing else, is recognised.
    """
    from parallelchange.cli.show import show_decision
    from parallelchange.cli.world import open_world
    from parallelchange.errors import UsageError
    from parallelchange.gates.base import Act
    from parallelchange.rollout.decide import Kind
    from parallelchange.rollout.run import gate

    if junit and not junit.parent.is_dir():  # found out after the gate has approved, it would look like a refusal
        raise UsageError(f"{junit} cannot be written: there is no such folder", hint="make it, or name another file")
    with open_world(change, database_url) as world:
        decision, weight = gate(world, to)
        name = world.plan.change.name
    passed = decision.kind is Kind.DONE or (
        decision.kind is Kind.DO and decision.act is Act.SET_WEIGHT and decision.weight == to
    )
    if junit:
        _write_junit(junit, name, decision, passed=passed)
    return show_decision(name, decision, as_json=as_json, weight=weight, passed=passed)


def _write_junit(path: Path, name: str, decision: Decision, *, passed: bool) -> None:
    from xml.etree import ElementTree as ET

    from parallelchange.errors import UsageError
    from parallelchange.model import Verdict

    suite = ET.Element("testsuite", name=f"parallelchange {name}")
    for result in decision.results:
        case = ET.SubElement(suite, "testcase", classname=result.version or "data", name=result.gate)
        if result.verdict is not Verdict.PASS:
            text = "\n".join(finding.message for finding in result.findings)
            ET.SubElement(case, "failure", message=result.verdict.value).text = _NO_XML.sub(_INSTEAD, text)
    case = ET.SubElement(suite, "testcase", classname=name, name="decision")
    if not passed:
        ET.SubElement(case, "failure", message=_NO_XML.sub(_INSTEAD, decision.why))
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    try:
        ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="name another file") from None
