"""The README says what is so."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from parallelchange.adapters.kubernetes.routers import ROUTERS
from parallelchange.changefile import load_change
from parallelchange.changeform import OperationFile
from parallelchange.cli import VERBS
from parallelchange.gates.page import render
from parallelchange.local.shop import BREAKS, example_path
from parallelchange.operations import OPERATIONS

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_gates_page_is_rendered_from_the_gates() -> None:
    shown = README.split("gates.page` -->\n")[1].split("<!-- /gates -->")[0]
    assert shown == render()


def test_the_change_it_shows_is_the_example(tmp_path: Path) -> None:
    (tmp_path / "shown.yaml").write_text(README.split("```yaml\n")[1].split("```")[0])
    for version in ("shop-v1", "shop-v2"):
        (tmp_path / f"{version}.json").touch()
    shown = load_change(tmp_path / "shown.yaml")
    example = load_change(example_path() / "changes" / "split-customer-name.yaml")
    assert shown.database == example.database
    assert shown.traffic.stages == example.traffic.stages


def test_verbs_breaks_and_operations_it_names_are_there() -> None:
    named = set(re.findall(r"parallelchange (\w+)", README)) - {"pairs"}
    assert named <= set(VERBS)
    broken = README.split("where KIND is one of")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", broken, re.MULTILINE)) == set(BREAKS)
    moved = README.split("## In a cluster")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", moved, re.MULTILINE)) == {*ROUTERS, "local"}
    listed = README.split("Operations so far: ")[1].split(". ")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(OPERATIONS)


def test_every_operation_is_a_key_of_the_change_file() -> None:
    assert {field.name for field in fields(OperationFile)} == set(OPERATIONS)
