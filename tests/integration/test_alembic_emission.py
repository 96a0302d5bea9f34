"""The emitted revisions, run by plain Alembic where this toolkit is not installed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.changes import NEW, OLD, live_plan, run_phase, session
from helpers.repository import add_revision, alembic, make_repository, python_without_us

from parallelchange.adapters.postgres.catalog import read_catalog
from parallelchange.adapters.postgres.database import PostgresDatabase
from parallelchange.adapters.postgres.revisions import Revisions
from parallelchange.emit.alembic import emit, scripts
from parallelchange.errors import Busy, InvalidFile, ParallelChangeError, SchemaState, UsageError
from parallelchange.model import Phase, State
from parallelchange.operations import Operation, RenameColumn, SetNotNull, SplitColumn
from parallelchange.plan import Plan, state_of

TABLES = (
    "CREATE TABLE t (id bigint PRIMARY KEY, a text NOT NULL, b text); CREATE TABLE u (id bigint PRIMARY KEY, a text)"
)
RENAME = RenameColumn(table="t", column="a", to="n")


@pytest.fixture
def ini(tmp_path: Path, database: str) -> Path:
    """A repository whose one revision made two tables, applied."""
    execute(database, TABLES)
    execute(database, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    execute(database, "INSERT INTO alembic_version VALUES ('0001')")
    return make_repository(tmp_path, sql=TABLES)


def planned(url: str, *operations: Operation, name: str = "a-change") -> Plan:
    with session(url, "parallelchange") as connection:
        return live_plan(connection, *operations, name=name)


def state(url: str, plan: Plan) -> State:
    with session(url, "parallelchange") as connection:
        return state_of(plan, read_catalog(connection, plan.tables))[0]


def execute(url: str, sql: str, application_name: str = OLD) -> list[tuple[Any, ...]]:
    with session(url, application_name) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def texts(files: list[Path]) -> dict[str, str]:
    return {path.name: path.read_text() for path in files}


def test_where_the_revisions_run_this_toolkit_cannot_be_imported(tmp_path: Path) -> None:
    tried = python_without_us(tmp_path, "import parallelchange")
    assert tried.returncode == 1
    assert "ModuleNotFoundError" in tried.stderr
    tried = python_without_us(tmp_path, "import parallelchange.model")
    assert "ModuleNotFoundError" in tried.stderr


def test_plain_alembic_runs_each_phase(ini: Path, database: str) -> None:
    plan = planned(database, RENAME, SetNotNull(table="t", column="b", up="'100%'"))
    emit(plan, ini)
    execute(database, "INSERT INTO t VALUES (1, 'x', NULL)")

    assert alembic(ini.parent, database, "upgrade", "expand@head").returncode == 0
    assert state(database, plan) is State.EXPANDED
    execute(database, "INSERT INTO t VALUES (2, 'y', NULL)")
    assert execute(database, "SELECT n, b FROM t ORDER BY id") == [(None, None), ("y", "100%")]

    down = alembic(ini.parent, database, "downgrade", "expand@0001")
    assert down.returncode == 0, down.stderr
    assert state(database, plan) is State.BASE
    assert alembic(ini.parent, database, "upgrade", "expand@head").returncode == 0

    refused = alembic(ini.parent, database, "upgrade", "migrate@head")
    assert refused.returncode == 1
    assert "parallel change a-change: rows of public.t break the law" in refused.stderr
    assert "run: parallelchange backfill a-change" in refused.stderr
    assert execute(database, "SELECT count(*) FROM pg_constraint WHERE conname ~ '^parallelchange'") == [(0,)]

    for work in plan.backfills:
        sets = ", ".join(f"{name} = {sql}" for name, sql in work.assign.items())
        execute(database, f"UPDATE t SET {sets} WHERE {work.unfilled}")
    for branch in ("migrate@head", "contract@head"):
        ran = alembic(ini.parent, database, "upgrade", branch)
        assert ran.returncode == 0, ran.stderr
    assert state(database, plan) is State.CONTRACTED
    assert execute(database, "SELECT n, b FROM t ORDER BY id") == [("x", "100%"), ("y", "100%")]

    refused = alembic(ini.parent, database, "downgrade", "contract@0001")
    assert refused.returncode == 1
    assert "contract is the point of no return" in refused.stderr
    assert state(database, plan) is State.CONTRACTED


def test_contract_by_plain_alembic_brings_what_comes_before_it(ini: Path, database: str) -> None:
    plan = planned(database, RENAME)
    emit(plan, ini)
    ran = alembic(ini.parent, database, "upgrade", "contract@head")
    assert ran.returncode == 0, ran.stderr
    assert state(database, plan) is State.CONTRACTED


def test_emitting_twice_writes_identical_files(ini: Path, database: str) -> None:
    plan = planned(database, RENAME)
    files = emit(plan, ini)
    first = texts(files)
    assert [path.name for path in files] == ["a_change_expand.py", "a_change_migrate.py", "a_change_contract.py"]
    assert emit(plan, ini) == files
    assert texts(files) == first


@pytest.mark.parametrize(("base", "left"), [("0001", (0,)), ("0001", (0, 1)), (None, (0,))])
def test_an_emission_that_was_killed_can_be_repeated(
    tmp_path: Path, database: str, base: str | None, left: tuple[int, ...]
) -> None:
    execute(database, TABLES)
    ini = make_repository(tmp_path, base=base)
    plan = planned(database, RENAME)
    files = emit(plan, ini)
    first = texts(files)
    for index, path in enumerate(files):
        if index not in left:
            path.unlink()
    assert texts(emit(plan, ini)) == first


def test_a_file_somebody_renamed_is_written_where_it_is(ini: Path, database: str) -> None:
    plan = planned(database, RENAME)
    expand, *_ = emit(plan, ini)
    renamed = expand.rename(expand.with_name("2027_01_01_expand.py"))
    assert emit(plan, ini)[0] == renamed
    assert not expand.exists()


def test_an_empty_history_gets_three_branches(tmp_path: Path, database: str) -> None:
    execute(database, TABLES)
    ini = make_repository(tmp_path, base=None)
    plan = planned(database, RENAME)
    emit(plan, ini)
    assert [script.down_revision for script in scripts(ini).walk_revisions()] == [None, None, None]
    assert alembic(tmp_path, database, "upgrade", "expand@head").returncode == 0
    with closing(PostgresDatabase(database, plan, ini)) as ours:
        ours.revert()
    assert state(database, plan) is State.BASE


def test_two_changes_stack_on_the_three_branches(ini: Path, database: str) -> None:
    first = planned(database, RENAME, name="first")
    second = planned(database, RenameColumn(table="u", column="a", to="m"), name="second")
    emit(first, ini)
    emit(second, ini)
    directory = scripts(ini)
    before = None
    for phase in Phase:
        lower, upper = (directory.get_revision(plan.revision(phase)) for plan in (first, second))
        assert (lower.down_revision, upper.down_revision) == ("0001", lower.revision)
        assert directory.get_revision(f"{phase}@head").revision == upper.revision
        assert upper.branch_labels == {phase.value}
        assert upper.dependencies == (None if before is None else before)
        before = upper.revision
    assert len(directory.get_heads()) == 3
    assert alembic(ini.parent, database, "upgrade", "expand@head").returncode == 0
    assert state(database, first) is state(database, second) is State.EXPANDED
    kept = texts(emit(first, ini) + emit(second, ini))
    assert texts(emit(second, ini) + emit(first, ini)) == kept


def two_expanded(ini: Path, url: str) -> tuple[Plan, Plan]:
    first = planned(url, RENAME, name="first")
    second = planned(url, RenameColumn(table="u", column="a", to="m"), name="second")
    for plan in (first, second):
        emit(plan, ini)
        with closing(PostgresDatabase(url, plan, ini)) as ours:
            ours.apply(Phase.EXPAND)
    return first, second


def test_contracting_the_second_change_never_contracts_the_first(ini: Path, database: str) -> None:
    """The first may have traffic on both versions: several changes are in flight, each in its own phase."""
    first, second = two_expanded(ini, database)
    with closing(PostgresDatabase(database, second, ini)) as ours:
        try:
            ours.apply(Phase.MIGRATE)
            ours.apply(Phase.CONTRACT)
        except ParallelChangeError:
            assert state(database, second) is State.EXPANDED
    assert state(database, first) is State.EXPANDED


def test_reverting_the_first_change_never_reverts_the_second(ini: Path, database: str) -> None:
    first, second = two_expanded(ini, database)
    with closing(PostgresDatabase(database, first, ini)) as ours:
        try:
            ours.revert()
        except ParallelChangeError:
            assert state(database, first) is State.EXPANDED
    assert state(database, second) is State.EXPANDED


def test_a_repository_with_two_heads_is_refused_and_left_alone(ini: Path, database: str) -> None:
    add_revision(ini.parent, "0002a", down="0001")
    add_revision(ini.parent, "0002b", down="0001")
    with pytest.raises(UsageError, match="2 Alembic heads") as caught:
        emit(planned(database, RENAME), ini)
    assert caught.value.hint is not None
    assert "alembic merge" in caught.value.hint
    assert len(list((ini.parent / "migrations/versions").glob("*.py"))) == 3


def test_a_history_that_goes_on_beside_the_branches_is_no_trouble(ini: Path, database: str) -> None:
    emit(planned(database, RENAME, name="first"), ini)
    add_revision(ini.parent, "0002", down="0001")
    second = planned(database, RenameColumn(table="u", column="a", to="m"), name="second")
    emit(second, ini)
    assert len(scripts(ini).get_heads()) == 4
    assert alembic(ini.parent, database, "upgrade", "expand@head").returncode == 0


def test_no_alembic_environment_is_an_invalid_file(tmp_path: Path, database: str) -> None:
    execute(database, TABLES)
    with pytest.raises(InvalidFile, match="no Alembic configuration"):
        emit(planned(database, RENAME), tmp_path / "alembic.ini")
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = nowhere\n")
    with pytest.raises(InvalidFile, match="environment"):
        emit(planned(database, RENAME), tmp_path / "alembic.ini")


# Hand-edited revisions.


@pytest.mark.parametrize("phase", Phase)
def test_an_edited_revision_is_found(ini: Path, database: str, phase: Phase) -> None:
    plan = planned(database, RENAME)
    files = emit(plan, ini)
    assert Revisions(database, plan, ini).problems(frozenset(), State.BASE) == ()
    path = files[list(Phase).index(phase)]
    path.write_text(path.read_text().replace("'500ms'", "'5min'", 1))
    (problem,) = Revisions(database, plan, ini).problems(frozenset(), State.BASE)
    assert f"the {phase} revision {plan.revision(phase)} holds other SQL" in problem


def test_an_edited_undo_is_found(ini: Path, database: str) -> None:
    """`revert` runs it."""
    plan = planned(database, RENAME)
    expand, *_ = emit(plan, ini)
    text = expand.read_text()
    assert "DROP COLUMN n" in text
    expand.write_text(text.replace("DROP COLUMN n", "DROP COLUMN a"))
    assert Revisions(database, plan, ini).problems(frozenset(), State.BASE)


def test_a_revision_in_other_words_with_the_same_sql_is_fine(ini: Path, database: str) -> None:
    plan = planned(database, RENAME)
    for path in emit(plan, ini):
        path.write_text("# mine now\n" + path.read_text().replace("    # ", "    #  "))
    assert Revisions(database, plan, ini).problems(frozenset(), State.BASE) == ()


def test_a_missing_revision_is_found(ini: Path, database: str) -> None:
    plan = planned(database, RENAME)
    emit(plan, ini)[2].unlink()
    (problem,) = Revisions(database, plan, ini).problems(frozenset(), State.BASE)
    assert "contract revision" in problem
    assert "is not in" in problem


def test_what_alembic_recorded_must_be_what_the_schema_shows(ini: Path, database: str) -> None:
    plan = planned(database, RENAME)
    emit(plan, ini)
    revisions = Revisions(database, plan, ini)
    with session(database, "parallelchange") as connection:
        run_phase(connection, plan.expand)
    assert revisions.problems(revisions.applied(), State.EXPANDED) == (
        "the schema is expanded, and Alembic has not recorded it",
    )
    with session(database, "parallelchange") as connection:
        run_phase(connection, plan.revert)
    assert revisions.problems(revisions.applied(), State.BASE) == ()
    revisions.upgrade(Phase.EXPAND)
    assert plan.revision(Phase.EXPAND) in revisions.applied()
    with session(database, "parallelchange") as connection:
        run_phase(connection, plan.revert)
    assert revisions.problems(revisions.applied(), State.BASE) == (
        "Alembic has recorded expand, and the schema shows nothing of it",
    )


# SQL that is hard to write down in Python.

NASTY = [
    "'100%'",
    "'%s %(x)s %%'",
    "'a:b :c ::d'",
    "upper(a)::text || ':x'",
    r"E'\n\t\\'",
    r"'C:\new\'",
    '\'"""\'',
    "'\"\"\"' || E'\\n\\\\'",
    "'''' || $$it's \"$$",
    "'ends with \"'",
    "'{\"a\": 1}'",
]


def nasty(url: str, expressions: list[str]) -> Plan:
    """A change with a column for each expression, beside one that keeps what was there."""
    up = {f"n{index}": sql for index, sql in enumerate(expressions)} | {"kept": "a"}
    return planned(url, SplitColumn(table="t", column="a", into=dict.fromkeys(up, "text"), up=up, down="kept"))


def survived(url: str, plan: Plan, expressions: list[str]) -> None:
    assert state(url, plan) is State.EXPANDED  # the trigger's body is the planned one, to the letter
    execute(url, "INSERT INTO t VALUES (1, 'x')")
    ((*wanted,),) = execute(url, f"SELECT {', '.join(expressions)} FROM t")
    ((*found,),) = execute(url, f"SELECT {', '.join(f'n{index}' for index in range(len(expressions)))} FROM t")
    assert found == wanted


@pytest.mark.parametrize("sql", NASTY)
def test_sql_survives_being_written_into_a_revision(ini: Path, database: str, sql: str) -> None:
    plan = nasty(database, [sql])
    emit(plan, ini)
    assert Revisions(database, plan, ini).problems(frozenset(), State.BASE) == ()
    with closing(PostgresDatabase(database, plan, ini)) as ours:
        ours.apply(Phase.EXPAND)
    survived(database, plan, [sql])


def test_sql_survives_plain_alembic(ini: Path, database: str) -> None:
    plan = nasty(database, NASTY)
    emit(plan, ini)
    ran = alembic(ini.parent, database, "upgrade", "expand@head")
    assert ran.returncode == 0, ran.stderr
    survived(database, plan, NASTY)


@pytest.mark.parametrize("name", ["order", "User Table", 'na"me', "100%", "back\\slash"])
def test_names_survive_being_written_into_a_revision(ini: Path, database: str, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    execute(database, f"CREATE TABLE {quoted} (id bigint PRIMARY KEY, {quoted} text)")
    plan = planned(database, RenameColumn(table=name, column=name, to="n"))
    emit(plan, ini)
    assert Revisions(database, plan, ini).problems(frozenset(), State.BASE) == ()
    with closing(PostgresDatabase(database, plan, ini)) as ours:
        for phase in Phase:
            ours.apply(phase)
    assert state(database, plan) is State.CONTRACTED


# Locks and failures.


def test_a_phase_waits_for_its_locks_and_gives_up_without_a_trace(ini: Path, database: str) -> None:
    plan = planned(database, RENAME)
    emit(plan, ini)
    with closing(PostgresDatabase(database, plan, ini, patience=0.1)) as ours, session(database, OLD) as reader:
        with reader.transaction():
            reader.execute("SELECT * FROM t")
            with pytest.raises(Busy, match=r"public\.t were not to be had") as caught:
                ours.apply(Phase.EXPAND)
        assert caught.value.exit_code == 3
        assert ours.revisions.applied() == {"0001"}
        assert state(database, plan) is State.BASE
        assert ours.apply(Phase.EXPAND).attempts == 1


def test_a_check_that_refuses_leaves_nothing_behind(ini: Path, database: str) -> None:
    plan = planned(database, RENAME)
    emit(plan, ini)
    seen: list[State] = []

    def refuse(inside: Any) -> None:
        seen.append(state_of(plan, inside.catalog())[0])
        raise SchemaState("no")

    with closing(PostgresDatabase(database, plan, ini)) as ours:
        with pytest.raises(SchemaState, match="no"):
            ours.apply(Phase.EXPAND, checks=refuse)
        with pytest.raises(SchemaState, match="no"):
            ours.apply(Phase.EXPAND, last_check=refuse)
    assert seen == [State.BASE, State.EXPANDED]
    assert state(database, plan) is State.BASE


def test_sql_the_server_refuses_is_told_and_nothing_changed(ini: Path, database: str) -> None:
    plan = planned(database, RENAME)
    emit(plan, ini)
    execute(database, "ALTER TABLE t ADD COLUMN n text")
    with closing(PostgresDatabase(database, plan, ini)) as ours, pytest.raises(SchemaState, match="already exists"):
        ours.apply(Phase.EXPAND)


def test_between_the_column_and_its_trigger_no_write_is_missed(ini: Path, database: str) -> None:
    """Expand is one transaction: whoever waits for its lock finds the trigger there."""
    plan = planned(database, RENAME)
    emit(plan, ini)
    with session(database, OLD) as old, closing(PostgresDatabase(database, plan, ini)) as ours:
        old.execute("SET lock_timeout = '100ms'")

        def write(_: object) -> None:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                old.execute("INSERT INTO t VALUES (1, 'x')")

        ours.apply(Phase.EXPAND, last_check=write)
        old.execute("INSERT INTO t VALUES (1, 'x')")
    assert execute(database, "SELECT a, n FROM t", NEW) == [("x", "x")]
