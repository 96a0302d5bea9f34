"""The operations as values: what they say they will do, and what they refuse."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.changes import CASES, NOT_NULL, RENAME, SPLIT, Case, catalog, make_change, pure_plan
from hypothesis import example, given
from hypothesis import strategies as st

from parallelchange.errors import InvalidFile
from parallelchange.model import Catalog, Column, Lock, State, Table, TableName
from parallelchange.operations import OPERATIONS, ChangeType, Operation, RenameColumn, SetNotNull, SplitColumn, Writers
from parallelchange.operations.trigger import Trigger
from parallelchange.plan import make_plan, state_of, steps
from parallelchange.sql import ident, object_name

WRITERS = Writers("a-change", "old", "new")
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
columns_cases = pytest.mark.parametrize("case", [c for c in CASES.values() if not c.in_place])

TABLE = Table(
    TableName("public", "t"),
    (
        Column("id", "bigint", nullable=False),
        Column("a", "text"),
        Column("b", "text", nullable=False),
        Column("total", "integer", generated=True, default="1 + 1"),
    ),
    ("id",),
    {"b": ("index t_b_idx",)},
)


def test_every_kind_of_operation_has_a_case() -> None:
    assert {case.operation.kind for case in CASES.values()} == set(OPERATIONS)


@every_case
def test_the_kind_is_the_key_in_the_change_file(case: Case) -> None:
    assert isinstance(case.operation, OPERATIONS[case.operation.kind])


@every_case
def test_it_can_be_planned_and_the_plan_is_the_same_each_time(case: Case) -> None:
    assert case.operation.problems(catalog(case.base)) == ()
    plan = pure_plan(case)
    assert plan.digest == pure_plan(case).digest != pure_plan(case, name="another").digest
    assert plan.tables == (case.base.name,)
    assert all(plan.statements(phase) for phase in ("expand", "migrate", "contract"))  # type: ignore[arg-type]


@every_case
def test_the_strongest_lock_comes_first_and_behind_a_timeout(case: Case) -> None:
    plan = pure_plan(case)
    for statements in (plan.expand, plan.migrate, plan.contract, plan.revert):
        assert statements[0].sql.startswith("SET LOCAL lock_timeout")
        locking = [statement for statement in statements if statement.lock is not Lock.NONE]
        first = max(locking, key=lambda statement: statement.lock)
        assert first.lock < Lock.ACCESS_EXCLUSIVE or first.sql.startswith("LOCK TABLE")
        # What comes before the strong lock needs a weak one: rows are looked at while others write.
        assert all(before.lock <= Lock.SHARE_UPDATE_EXCLUSIVE for before in locking[: locking.index(first)])


@every_case
def test_every_statement_says_what_it_is_for(case: Case) -> None:
    plan = pure_plan(case)
    for statement in (*plan.expand, *plan.migrate, *plan.contract, *plan.revert):
        assert statement.why
        assert not statement.sql.rstrip().endswith(";")
        assert (statement.table is None) == (statement.lock is Lock.NONE)


@every_case
def test_the_footprint_names_what_the_statements_do(case: Case) -> None:
    footprint = case.operation.footprint(case.base)
    plan = pure_plan(case)
    expand, contract = (" ".join(s.sql for s in part) for part in (plan.expand, plan.contract))
    revert = " ".join(s.sql for s in plan.revert)
    for name, type_ in footprint.added.items():
        assert f"ADD COLUMN {ident(name)} {type_}" in expand
        assert f"DROP COLUMN {ident(name)}" in revert
    for name in footprint.dropped:
        assert f"DROP COLUMN {ident(name)}" in contract
        assert f"DROP COLUMN {ident(name)}" not in expand + revert
    for name in footprint.not_null:
        assert f"ALTER COLUMN {ident(name)} SET NOT NULL" in contract
    assert footprint.added or footprint.not_null


@every_case
def test_expand_adds_nothing_the_old_version_could_trip_over(case: Case) -> None:
    for statement in case.operation.expand(case.base):
        assert not re.search(r"\b(DEFAULT|NOT NULL|CHECK|DROP|RENAME|TYPE)\b", statement.sql)


@every_case
def test_the_laws_show_the_key_and_both_shapes(case: Case) -> None:
    laws = case.operation.laws(case.base)
    assert len({law.id for law in laws}) == len(laws) > 0
    for law in laws:
        assert law.table == case.base.name
        assert set(law.shows) == {case.key, *case.old, *case.new}
        assert set(law.derived) == set(() if case.in_place else case.new)


@every_case
def test_the_backfill_assigns_the_new_shape_along_the_key(case: Case) -> None:
    (work,) = case.operation.backfills(case.base)
    assert (work.table, work.key, tuple(work.assign)) == (case.base.name, (case.key,), case.new)


@every_case
def test_an_update_trigger_asks_only_for_the_columns_of_the_shapes(case: Case) -> None:
    sync = case.operation.sync(case.base, WRITERS)
    assert ident(case.spare) not in sync.update_when
    assert all(f"NEW.{ident(name)}" in sync.update_when for name in {*case.old, *case.new})


@every_case
def test_a_state_is_told_from_the_schema(case: Case) -> None:
    plan = pure_plan(case)
    (expected,) = plan.expectations
    old, footprint = case.base, case.operation.footprint(case.base)
    added = tuple(Column(name, plan.base.types.get(type_, type_)) for name, type_ in footprint.added.items())
    triggers = {name: (True, body) for name, body in expected.triggers.items()}
    both = replace(old, columns=(*old.columns, *added), triggers=triggers)
    left = tuple(
        replace(column, nullable=column.nullable and column.name not in footprint.not_null)
        for column in both.columns
        if column.name not in footprint.dropped
    )
    assert state_of(plan, catalog(old)) == (State.BASE, ())
    assert state_of(plan, catalog(both)) == (State.EXPANDED, ())
    assert state_of(plan, catalog(replace(both, columns=left, triggers={}))) == (State.CONTRACTED, ())
    for broken in (
        replace(both, triggers=dict(list(triggers.items())[:1])),
        replace(both, triggers=dict.fromkeys(triggers, (False, next(iter(expected.triggers.values()))))),
        replace(both, triggers=dict.fromkeys(triggers, (True, "another"))),
        replace(both, columns=left),
    ):
        state, differences = state_of(plan, catalog(broken))
        assert state is State.PARTIAL
        assert differences
    assert state_of(plan, catalog())[0] is State.PARTIAL


@columns_cases
def test_a_new_column_of_another_type_is_no_known_state(case: Case) -> None:
    plan = pure_plan(case)
    added = tuple(Column(name, "bytea") for name in case.new)
    live = replace(case.base, columns=(*case.base.columns, *added))
    assert state_of(plan, catalog(live))[0] is State.PARTIAL


def test_a_column_to_be_not_null_that_is_gone_is_no_known_state() -> None:
    plan = pure_plan(NOT_NULL)
    live = replace(NOT_NULL.base, columns=tuple(c for c in NOT_NULL.base.columns if c.name != "phone"))
    assert state_of(plan, catalog(live))[0] is State.PARTIAL


@every_case
def test_the_paired_plan_guards_each_stage(case: Case) -> None:
    rows = steps(pure_plan(case))
    assert [row.weight for row in rows if row.act == "set-weight"] == [50, 250, 500, 1000]
    assert all(row.gates for row in rows if row.act != "rehearse")
    assert rows[-1].act == "contract"


# Problems.


def _problem(operation: Operation, base: Catalog) -> tuple[str, str]:
    (problem, *_) = operation.problems(base)
    assert problem.remedy
    return problem.key, problem.message


def _on(kind: str, table: str, column: str) -> Operation:
    match kind:
        case "split_column":
            return SplitColumn(table=table, column=column, into={"n": "text"}, up={"n": column}, down="n")
        case "rename_column":
            return RenameColumn(table=table, column=column, to="n")
        case "change_type":
            return ChangeType(table=table, column=column, to="n", type="text")
        case _:
            return SetNotNull(table=table, column=column, up="''")


every_kind = pytest.mark.parametrize("kind", OPERATIONS)


@every_kind
def test_the_table_must_be_there_ordinary_and_keyed(kind: str) -> None:
    assert _problem(_on(kind, "x", "a"), catalog(TABLE)) == ("table", "there is no table public.x")
    for wrong, says in (
        (replace(TABLE, kind="p"), "no ordinary table"),
        (replace(TABLE, kind="v"), "no ordinary table"),
        (replace(TABLE, primary_key=()), "no primary key"),
    ):
        key, message = _problem(_on(kind, "t", "a"), catalog(wrong))
        assert key == "table"
        assert says in message


@every_kind
def test_the_column_must_be_there_and_not_computed(kind: str) -> None:
    for column, says in (("zzz", "has no column zzz"), ("total", "generated")):
        key, message = _problem(_on(kind, "t", column), catalog(TABLE))
        assert key == "column"
        assert says in message


@pytest.mark.parametrize("kind", [kind for kind in OPERATIONS if kind != "set_not_null"])
def test_a_column_with_dependents_or_in_the_key_cannot_be_replaced(kind: str) -> None:
    assert "index t_b_idx would fall" in _problem(_on(kind, "t", "b"), catalog(TABLE))[1]
    assert "part of the primary key" in _problem(_on(kind, "t", "id"), catalog(TABLE))[1]


@pytest.mark.parametrize(
    "operation",
    [
        RenameColumn(table="t", column="a", to="b"),
        ChangeType(table="t", column="a", to="b", type="text"),
        SplitColumn(table="t", column="a", into={"n": "text", "b": "text"}, up={"n": "a", "b": "a"}, down="n"),
    ],
    ids=lambda operation: operation.kind,
)
def test_a_new_column_may_not_be_there_already(operation: Operation) -> None:
    assert _problem(operation, catalog(TABLE)) == ("column", "t already has a column b")


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        (SplitColumn(table="t", column="a", into={}, up={}, down="a"), "no column to split into"),
        (SplitColumn(table="t", column="a", into={"n": "text"}, up={"m": "a"}, down="n"), "same columns: m, n"),
        (SplitColumn(table="t", column="a", into={"n": "text"}, up={"n": "$parallelchange$"}, down="n"), "the tag"),
        (SplitColumn(table="t", column="a", into={"n": "text"}, up={"n": "a"}, down="'$parallelchange$'"), "the tag"),
        (SetNotNull(table="t", column="b", up="''"), "NOT NULL already"),
        (SetNotNull(table="t", column="a", up="'$parallelchange$'"), "the tag"),
    ],
)
def test_other_problems(operation: Operation, says: str) -> None:
    assert says in _problem(operation, catalog(TABLE))[1]


def test_an_expression_may_not_use_what_the_trigger_cannot_see() -> None:
    """Generated columns are computed after BEFORE triggers: in the trigger they are NULL."""
    for kind in OPERATIONS:
        for expression in _on(kind, "t", "a").expressions(TABLE):
            assert "total" not in expression.over


def test_a_problem_is_told_with_its_line() -> None:
    change = make_change(RenameColumn(table="t", column="zzz", to="n"), path=Path("some.yaml"))
    change.lines.update({"database.0": 7, "database.0.rename_column.column": 9})
    with pytest.raises(InvalidFile, match="no column zzz") as caught:
        make_plan(change, catalog(TABLE))
    assert caught.value.line == 9


def test_a_type_that_is_not_there_is_told() -> None:
    change = make_change(ChangeType(table="t", column="a", to="n", type="itneger"))
    with pytest.raises(InvalidFile, match="no type itneger"):
        make_plan(change, catalog(TABLE))


OVERLAPPING = {
    "the same old column": (RenameColumn(table="t", column="a", to="n"), RenameColumn(table="t", column="a", to="m")),
    "the same new column": (
        RenameColumn(table="t", column="a", to="n"),
        ChangeType(table="public.t", column="c", to="n", type="text"),
    ),
    "a column that goes": (SetNotNull(table="t", column="a", up="''"), RenameColumn(table="t", column="a", to="n")),
}


@pytest.mark.parametrize("operations", OVERLAPPING.values(), ids=OVERLAPPING)
def test_two_operations_may_not_speak_of_one_column(operations: tuple[Operation, ...]) -> None:
    table = replace(TABLE, columns=(*TABLE.columns, Column("c", "text")))
    for order in (operations, operations[::-1]):
        with pytest.raises(InvalidFile, match="operations 1 and 2 both change"):
            make_plan(make_change(*order), catalog(table, types=["text"]))


def test_operations_on_one_table_share_one_trigger() -> None:
    operations = (RenameColumn(table="t", column="a", to="n"), SetNotNull(table="t", column="c", up="''"))
    table = replace(TABLE, columns=(*TABLE.columns, Column("c", "text")))
    plan = make_plan(make_change(*operations), catalog(table))
    assert [s.sql.split(" ON ")[0] for s in plan.expand if "CREATE TRIGGER" in s.sql] == [
        f"CREATE TRIGGER {name} BEFORE {event}"
        for name, event in zip(plan.expectations[0].triggers, ("INSERT", "UPDATE"), strict=True)
    ]
    # The rename must see every INSERT, so NULL in the other column may not be asked for.
    assert "FOR EACH ROW EXECUTE" in next(s.sql for s in plan.expand if "BEFORE INSERT" in s.sql)
    assert sum(s.sql.startswith("LOCK TABLE") for s in plan.expand) == 1


# Names.


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20))
@example("100%")
def test_an_identifier_is_quoted_as_postgresql_reads_it(name: str) -> None:
    quoted = ident(name)
    if re.fullmatch(r"[a-z_][a-z0-9_$]*", quoted):
        assert quoted == name
    else:
        assert quoted[0] == quoted[-1] == '"'
        assert quoted[1:-1].replace('""', "").count('"') == 0
        assert quoted[1:-1].replace('""', '"') == name


@pytest.mark.parametrize("name", ["User Table", "order", 'na"me', "Straße", "1st", "100%", "x" * 63])
def test_nasty_names_reach_the_statements_quoted(name: str) -> None:
    table = Table(TableName("public", name), (Column("id", "bigint", nullable=False), Column(name, "text")), ("id",))
    for operation in (
        RenameColumn(table=name, column=name, to="n"),
        SetNotNull(table=name, column=name, up="''"),
    ):
        plan = make_plan(make_change(operation), catalog(table))
        quoted = name if name == "x" * 63 else '"' + name.replace('"', '""') + '"'
        assert f"LOCK TABLE public.{quoted} IN" in plan.expand[1].sql
        assert any(f"NEW.{quoted}" in statement.sql for statement in plan.expand)


parts = st.lists(st.text(max_size=70), min_size=1, max_size=4)


@given(parts)
def test_an_object_name_fits_and_is_always_the_same(names: list[str]) -> None:
    name = object_name(*names)
    assert len(name.encode()) <= 63
    assert name == object_name(*names)


def test_long_names_are_told_apart_by_their_ends() -> None:
    long = [object_name("parallelchange", "x" * 60, f"table_{number}") for number in range(20)]
    assert len(set(long)) == 20


@pytest.mark.parametrize(
    "similar",
    [(("split", "customer_name"), ("split-customer", "name")), (("c", "User Table"), ("c", "user_table"))],
    ids=("two changes", "two tables"),
)
def test_functions_of_different_changes_or_tables_have_different_names(similar: Any) -> None:
    names = {Trigger(change, TableName("public", table), []).function for change, table in similar}
    assert len(names) == 2


def test_checks_of_different_columns_have_different_names() -> None:
    table = replace(TABLE, columns=(*TABLE.columns, Column("A", "text")))
    operations = [SetNotNull(table="t", column=column, up="''") for column in ("a", "A")]
    plan = make_plan(make_change(*operations), catalog(table))
    names = re.findall(r"ADD CONSTRAINT (\S+)", " ".join(s.sql for s in plan.migrate))
    assert len(names) == len(set(names)) == 2


def test_an_application_name_with_a_quote_stays_a_literal() -> None:
    plan = pure_plan(SPLIT, old="it's", new="a\\b")
    function = next(s.sql for s in plan.expand if s.sql.startswith("CREATE FUNCTION"))
    assert "= 'it''s'" in function
    assert "E'a\\\\b'" in function


def test_without_declared_sessions_the_values_tell_who_writes() -> None:
    function = next(s.sql for s in pure_plan(RENAME, old=None, new=None).expand if "FUNCTION" in s.sql)
    assert "IF false OR (NOT (false) AND" in function
