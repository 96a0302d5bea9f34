"""From a change and the tables it starts from to everything that will be done: pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from parallelchange.change import Change
from parallelchange.errors import InvalidFile
from parallelchange.gates.base import Act
from parallelchange.model import (
    Backfill,
    Catalog,
    Law,
    Lock,
    Phase,
    State,
    Statement,
    Table,
    TableName,
    digest,
    format_weight,
)
from parallelchange.operations import Problem, Sync, Writers
from parallelchange.operations.trigger import Trigger
from parallelchange.sql import PINNED, literal, qualified, search_path

__all__ = ["Expectation", "Plan", "Step", "incarnation_of", "make_plan", "state_of", "steps"]


@dataclass(frozen=True)
class Expectation:
    """What the change's operations leave on one table, by which its state is told.

    Args:
        table: The table.
        added: New columns with their types.
        dropped: Columns that go at contract.
        not_null: Columns that are NOT NULL only after contract.
        triggers: Trigger name to md5 of its function's body.
    """

    table: TableName
    added: Mapping[str, str]
    dropped: tuple[str, ...]
    not_null: tuple[str, ...]
    triggers: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """Everything a change does to the database, in order.

    Args:
        change: The change.
        base: The tables it was planned on, as they were before it.
        expand: One transaction.
        backfills: Passes over the tables.
        migrate: One transaction, once nothing old writes: refuses unless the laws hold, then lets no NULL in.
        contract: One transaction.
        revert: One transaction that undoes `expand`.
        relax: One transaction that undoes `migrate`.
        laws: What must hold while both shapes live.
        expectations: By which the state of the schema is told.
        digest: sha256 over all of it; evidence for another plan does not count.
    """

    change: Change
    base: Catalog
    expand: tuple[Statement, ...]
    backfills: tuple[Backfill, ...]
    migrate: tuple[Statement, ...]
    contract: tuple[Statement, ...]
    revert: tuple[Statement, ...]
    relax: tuple[Statement, ...]
    laws: tuple[Law, ...]
    expectations: tuple[Expectation, ...]
    digest: str = field(default="")

    def statements(self, phase: Phase) -> tuple[Statement, ...]:
        """The statements of a phase's revision."""
        return {Phase.EXPAND: self.expand, Phase.MIGRATE: self.migrate, Phase.CONTRACT: self.contract}[phase]

    def revision(self, phase: Phase) -> str:
        """Id of a phase's Alembic revision: the same wherever the change is emitted."""
        return digest([self.change.name, phase])[:12]

    @property
    def tables(self) -> tuple[TableName, ...]:
        """The tables it changes."""
        return tuple(e.table for e in self.expectations)


def _lock(tables: list[TableName]) -> tuple[Statement, ...]:
    # Taking the strongest lock first leaves no moment in which a weaker one waits to be raised: no deadlock.
    return tuple(
        Statement(
            f"LOCK TABLE {qualified(table.schema, table.name)} IN ACCESS EXCLUSIVE MODE",
            Lock.ACCESS_EXCLUSIVE,
            table,
            "the strongest lock first, so that none is raised later",
        )
        for table in tables
    )


_TIMEOUT = Statement("SET LOCAL lock_timeout = '500ms'", Lock.NONE, None, "waits behind nobody for longer")
_SEES_ALL = (
    Statement("SET LOCAL row_security = off", Lock.NONE, None, "a hidden row is an error, not a row less"),
    *(
        Statement(
            f"SET LOCAL {name} = {literal(value)}", Lock.NONE, None, "values are written as the trigger writes them"
        )
        for name, value in PINNED.items()
    ),
)


def _assert(law: Law, change: str) -> Statement:
    """Refuse where a row breaks the law, under plain Alembic too."""
    at = qualified(law.table.schema, law.table.name)
    path = search_path(law.table.schema)
    message = literal(f"parallel change {change}: rows of {law.table} break the law that {law.says}")
    hint = literal(f"run: parallelchange backfill {change}")
    return Statement(
        "DO $parallelchange$\nDECLARE path text := current_setting('search_path');\nBEGIN\n"
        f"PERFORM set_config('search_path', {literal(path)}, true);\n"
        f"IF EXISTS (SELECT FROM {at} WHERE ({law.holds}) IS NOT TRUE) THEN\n"
        f"  RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = {message}, HINT = {hint};\nEND IF;\n"
        "PERFORM set_config('search_path', path, true);\nEND\n$parallelchange$",
        Lock.ACCESS_SHARE,
        law.table,
        f"refuses unless {law.says}",
    )


def make_plan(change: Change, base: Catalog) -> Plan:
    """Compile a change for the tables it starts from.

    Args:
        change: The change.
        base: Its tables before the change.

    Raises:
        InvalidFile: An operation does not fit the tables; names the change file's line.
    """
    _refuse_problems(change, base)
    _no_overlap(change, base)
    name = change.name
    pairs = [(operation, base.tables[operation.table_name]) for operation in change.database]
    triggers = _triggers(change, base)
    lock = _lock(sorted({table.name for _, table in pairs}))
    laws = tuple(law for operation, table in pairs for law in operation.laws(table))
    created = [s for trigger in triggers for s in trigger.create()]
    dropped = [s for trigger in triggers for s in trigger.drop()]
    added = [s for operation, table in pairs for s in operation.expand(table)]
    checks = [s for operation, table in pairs for s in operation.migrate(table, name)]
    relaxed = [s for operation, table in pairs for s in operation.relax(table, name)]
    proofs = [s for operation, table in pairs for s in operation.prove(table, name)]
    left = [s for operation, table in pairs for s in operation.contract(table, name)]
    undone = [s for operation, table in pairs for s in operation.revert(table, name)]
    asserts = [_assert(law, name) for law in laws]
    plan = Plan(
        change=change,
        base=base,
        expand=(_TIMEOUT, *lock, *added, *created),
        backfills=tuple(b for operation, table in pairs for b in operation.backfills(table)),
        migrate=(_TIMEOUT, *_SEES_ALL, *asserts, *(lock if checks else ()), *checks),
        contract=(_TIMEOUT, *proofs, *lock, *dropped, *left),
        revert=(_TIMEOUT, *lock, *dropped, *undone),
        relax=(_TIMEOUT, *relaxed) if relaxed else (),
        laws=laws,
        expectations=tuple(_expect(base.tables[t.table], change, t) for t in triggers),
    )
    parts = (plan.expand, plan.backfills, plan.migrate, plan.contract, plan.laws)
    traffic = (change.traffic.stages, [(version.name, version.role) for version in change.versions])
    return replace(plan, digest=digest([parts, traffic]))


def _refuse_problems(change: Change, base: Catalog) -> None:
    for index, operation in enumerate(change.database):
        unknown = [
            Problem("type", f"there is no type {type_}", "check its spelling and schema")
            for type_ in operation.types
            if type_ not in base.types
        ]
        for problem in (*unknown, *operation.problems(base)):
            line = change.line_of("database", index, operation.kind, problem.key)
            raise InvalidFile(problem.message, path=change.path, hint=problem.remedy, line=line)


def _triggers(change: Change, base: Catalog) -> list[Trigger]:
    """One for each table, for all operations on it, in the order the tables are first named."""
    writers = Writers(change.name, change.old.application_name, change.new.application_name)
    syncs: dict[TableName, list[Sync]] = {}
    for operation in change.database:
        name = operation.table_name
        syncs.setdefault(name, []).append(operation.sync(base.tables[name], writers))
    return [Trigger(change.name, name, needed) for name, needed in syncs.items()]


def _expect(table: Table, change: Change, trigger: Trigger) -> Expectation:
    added: dict[str, str] = {}
    dropped: list[str] = []
    not_null: list[str] = []
    for operation in change.database:
        if operation.table_name != table.name:
            continue
        footprint = operation.footprint(table)
        added |= footprint.added
        dropped += footprint.dropped
        not_null += footprint.not_null
    triggers = dict.fromkeys(trigger.names, trigger.body_digest)
    return Expectation(table.name, added, tuple(dropped), tuple(not_null), triggers)


def _no_overlap(change: Change, base: Catalog) -> None:
    """Two operations of one change may not speak of the same column: their triggers would race."""
    seen: dict[tuple[TableName, str], int] = {}
    for index, operation in enumerate(change.database):
        footprint = operation.footprint(base.tables[operation.table_name])
        for column in (*footprint.added, *footprint.dropped, *footprint.not_null):
            before = seen.setdefault((operation.table_name, column), index)
            if before != index:
                raise InvalidFile(
                    f"operations {before + 1} and {index + 1} both change {operation.table_name}.{column}",
                    path=change.path,
                    line=change.line_of("database", index),
                    hint="make it two changes, one after the other",
                )


@dataclass
class _Seen:
    """What of a plan's expectations a schema holds, in words."""

    made: list[str] = field(default_factory=list)  # by expand, and there
    missing: list[str] = field(default_factory=list)  # made by expand, and not there
    kept: list[str] = field(default_factory=list)  # taken away by contract, and still there
    gone: list[str] = field(default_factory=list)  # taken away by contract
    wrong: list[str] = field(default_factory=list)  # there, and not as planned
    triggers: int = 0

    def look(self, plan: Plan, expected: Expectation, table: Table) -> None:
        """Hold one table against what is expected of it."""
        at = expected.table
        for name, type_ in expected.added.items():
            column, wanted = table.column(name), plan.base.types.get(type_, type_)
            (self.made if column else self.missing).append(f"column {at}.{name}")
            if column and column.type != wanted:
                self.wrong.append(f"column {at}.{name} is {column.type}, planned as {wanted}")
        for name, body in expected.triggers.items():
            enabled, found = table.triggers.get(name, (False, ""))
            there = name in table.triggers
            self.triggers += there
            (self.made if there else self.missing).append(f"trigger {name} on {at}")
            if there and not (enabled and found == body):
                self.wrong.append(f"trigger {name} on {at} is {'another than planned' if enabled else 'disabled'}")
        base = plan.base.tables[at]
        for name in expected.dropped:
            (self.kept if table.column(name) else self.gone).append(f"column {at}.{name}")
            self._unplanned(base, table, name)
        for name in expected.not_null:
            column = table.column(name)
            if column is None:
                self.wrong.append(f"column {at}.{name} is missing")
            else:
                (self.kept if column.nullable else self.gone).append(f"nullable {at}.{name}")
        if self.kept or self.triggers:
            self.wrong += [f"{child} inherits from {at} and is not in the plan" for child in table.children]
            self.wrong += [f"trigger {name} on {at} fires after ours" for name in table.later_triggers]

    def _unplanned(self, base: Table, table: Table, name: str) -> None:
        """What came to an old column since the change was planned would go with it unseen."""
        column, before = table.column(name), base.column(name)
        if column is not None and column != before:
            self.wrong.append(f"column {base.name}.{name} is no longer as it was when the change was planned")
        known = base.dependents.get(name, ())
        for dependent in table.dependents.get(name, ()):
            if dependent not in known and "zz_parallelchange_" not in dependent:
                self.wrong.append(f"{dependent} depends on column {base.name}.{name} and is not in the plan")


def state_of(plan: Plan, live: Catalog) -> tuple[State, tuple[str, ...]]:
    """Tell from the schema itself where the change stands.

    Returns:
        The state, and for `partial` what is there and what is missing.
    """
    seen = _Seen()
    for expected in plan.expectations:
        table = live.table(expected.table)
        if table is None:
            return State.PARTIAL, (f"table {expected.table} is missing",)
        seen.look(plan, expected, table)
    if seen.wrong:
        return State.PARTIAL, tuple(seen.wrong)
    if not seen.gone and not seen.missing:
        return State.EXPANDED, ()
    if not seen.gone and not seen.made:
        return State.BASE, ()
    if not seen.kept and not seen.triggers and all(item.startswith("trigger") for item in seen.missing):
        return State.CONTRACTED, ()
    there = (f"{item} is there" for item in (*seen.made, *seen.kept))
    return State.PARTIAL, (*there, *(f"{item} is missing" for item in (*seen.missing, *seen.gone)))


def incarnation_of(live: Catalog) -> str:
    """Which expand it is whose objects are there: what was measured or filled under another one is void."""
    return ";".join(f"{name}:{table.incarnation}" for name, table in sorted(live.tables.items()))


@dataclass(frozen=True)
class Step:
    """One row of the paired plan.

    Args:
        act: What is done.
        phase: The database phase it belongs to.
        weight: The canary's share while it lasts, in thousandths.
        gates: Ids of the gates before it.
        text: What happens, for people.
    """

    act: Act
    phase: Phase
    weight: int
    gates: tuple[str, ...]
    text: str


def steps(plan: Plan) -> tuple[Step, ...]:
    """The paired plan: phases beside stages, with the gates between."""
    from parallelchange.gates import guarding

    traffic = plan.change.traffic
    rows = [
        Step(Act.REHEARSE, Phase.EXPAND, 0, (), "the whole change on a scratch copy"),
        Step(Act.EXPAND, Phase.EXPAND, 0, guarding(Act.EXPAND), f"{len(plan.expand)} statements, one transaction"),
        Step(Act.BACKFILL, Phase.MIGRATE, 0, guarding(Act.BACKFILL), ", ".join(b.id for b in plan.backfills)),
    ]
    before = guarding(Act.SET_WEIGHT)
    rows += [
        Step(
            Act.SET_WEIGHT,
            Phase.MIGRATE,
            weight,
            before,
            f"{format_weight(weight)} to {plan.change.new.name}, then soak {traffic.soak:g} s",
        )
        for weight in traffic.stages
    ]
    rows.append(
        Step(
            Act.RETIRE,
            Phase.MIGRATE,
            1000,
            guarding(Act.RETIRE),
            f"{plan.change.old.name} stops after {traffic.drain:g} s without traffic",
        )
    )
    rows.append(
        Step(
            Act.CONTRACT,
            Phase.CONTRACT,
            1000,
            guarding(Act.CONTRACT),
            f"{len(plan.migrate) + len(plan.contract)} statements; the point of no return",
        )
    )
    return tuple(rows)
