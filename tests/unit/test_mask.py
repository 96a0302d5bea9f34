"""Masking rules held against the tables: which make sense, and which would break a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallelchange.change import Mask
from parallelchange.errors import InvalidFile
from parallelchange.local.mask import ForeignKey, SourceColumn, SourceTable, apply_masks
from parallelchange.model import TableName


def column(name: str, base: str, typmod: int = -1, *, required: bool = False, generated: bool = False) -> SourceColumn:
    return SourceColumn(name, base, base, base, typmod, required, generated)


def table(
    oid: int, name: str, *columns: SourceColumn, unique: str = "id", above: int = 0, kind: str = "r"
) -> SourceTable:
    known = {one.name: one for one in (column("id", "int4", required=True), *columns)}
    inherits = frozenset({above} if above else ())
    return SourceTable(
        oid, TableName.parse(name), kind, True, ("id",), frozenset(unique.split()), 1, inherits, known
    )  # fmt: skip


TABLES = (
    table(1, "people", column("email", "text"), column("nick", "varchar", 8), column("code", "numeric", 131078),
          column("at", "timestamptz"), column("name", "text", required=True), column("up", "text", generated=True),
          column("boss", "int4"), column("state", "float4"), column("long", "varchar", 44),
          unique="id email nick code state long"),
    table(2, "orders", column("email", "text"), column("long", "varchar", 54), column("person", "int8")),
    table(3, "parts", column("email", "text"), kind="p"),
    table(4, "parts_1", column("email", "text"), above=3),
    table(5, "old", column("email", "text")),
    table(6, "older", column("email", "text"), above=5),
)  # fmt: skip
KEYS = (
    ForeignKey(2, 1, (("email", "email"),)),
    ForeignKey(2, 1, (("long", "long"),)),
    ForeignKey(2, 1, (("person", "id"),)),
    ForeignKey(1, 1, (("boss", "id"),)),
)


def mask(name: str, rule: str) -> Mask:
    of, _, column_ = name.rpartition(".")
    text = "1" if rule == "sql" else None
    return Mask(table=TableName.parse(of), column=column_, rule=rule, expression=text, path=Path("c.yaml"), line=7)


def apply(**given: str) -> dict[tuple[int, str], str]:
    masks = [mask(name.replace("__", "."), rule) for name, rule in given.items()]
    return {place: one.rule for place, one in apply_masks(masks, TABLES, KEYS).items()}


def test_rules_that_make_sense() -> None:
    both = apply(people__email="hash", orders__email="hash", people__at="null", people__name="sql")
    assert both == {(1, "email"): "hash", (2, "email"): "hash", (1, "at"): "null", (1, "name"): "sql"}


def test_a_rule_holds_for_the_partitions() -> None:
    assert apply(parts__email="hash") == {(3, "email"): "hash", (4, "email"): "hash"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"nobody__email": "hash"}, "has no table public.nobody"),
        ({"people__nothing": "hash"}, "has no column nothing"),
        ({"people__up": "hash"}, "is computed"),
        ({"people__id": "null"}, "is a key"),
        ({"people__nick": "null"}, "is a key"),
        ({"people__name": "null"}, "is NOT NULL"),
        ({"people__at": "hash"}, "no hash of type timestamptz"),
        ({"people__nick": "hash"}, "stay unique"),
        ({"people__code": "hash"}, "stay unique"),
        ({"people__state": "hash"}, "stay unique"),
        ({"people__email": "hash"}, "masked alike"),
        ({"orders__email": "hash"}, "masked alike"),
        ({"orders__email": "null"}, "masked alike"),
        ({"orders__email": "sql", "people__email": "sql"}, "masked alike"),
        ({"orders__email": "sql", "people__email": "hash"}, "masked alike"),
        ({"orders__long": "hash", "people__long": "hash"}, "masked alike"),
        ({"orders__person": "hash", "people__id": "hash", "people__boss": "hash"}, "masked alike"),
        ({"people__id": "hash"}, "masked alike"),
        ({"parts_1__email": "null"}, "is a partition"),
        ({"old__email": "hash", "older__email": "null"}, "two rules"),
    ],
)
def test_rules_that_make_no_sense(given: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        apply(**given)
    assert says in caught.value.message
    assert caught.value.line == 7
    assert caught.value.hint
