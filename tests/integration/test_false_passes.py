"""Ways in which an adversary once got traffic moved, or data dropped, without proof."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.changes import NEW, OLD
from helpers.repository import alembic
from helpers.world import (
    LOSSY,
    RENAME,
    ROWS,
    TABLE,
    V1,
    V2,
    Scene,
    corpus_of,
    decision_on,
    make_scene,
    recorded,
    run_sql,
    scene_of,
    walk,
)

from parallelchange.adapters.postgres.backfill import run_backfill
from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.execute import execute_all
from parallelchange.corpus import write_corpus
from parallelchange.errors import Blocked, Busy, InvalidFile, ParallelChangeError, Refused, SchemaState, Unavailable
from parallelchange.gates.base import Act
from parallelchange.local.rehearse import Rehearsal
from parallelchange.local.rehearse import rehearse as rehearse_on_copy
from parallelchange.model import FULL, Phase, State, Verdict
from parallelchange.plan import incarnation_of, state_of
from parallelchange.rollout import advance as acts
from parallelchange.rollout.decide import Decision, Kind
from parallelchange.rollout.measure import measure, measure_laws, rehearse
from parallelchange.rollout.observe import corpora, observe
from parallelchange.rollout.run import gate, promote, rollout
from parallelchange.rollout.world import World

Make = Callable[..., Scene]
STAGE = 50
FOREIGN = "INSERT INTO t (id, a) VALUES (99, 'Mary Ann Smith')"
"""A row that breaks the law of LOSSY."""


@pytest.fixture
def make(database: str, tmp_path: Path) -> Iterator[Make]:
    made: list[Scene] = []

    def _make(operations: str = RENAME, **options: Any) -> Scene:
        made.append(make_scene(database, tmp_path / f"repo{len(made)}", operations, **options))
        return made[-1]

    yield _make
    for scene in made:
        scene.close()


def state(world: World) -> State:
    return state_of(world.plan, world.database.catalog())[0]


def weight(world: World) -> int:
    return world.router.get().weight


def move(world: World, to: int) -> None:
    """Somebody else moves the traffic."""
    world.router.set(to, resource_version=world.router.get().resource_version)


def says(decision: Decision, gate_id: str) -> Verdict:
    found = {r.verdict for r in decision.results if r.gate == gate_id}
    return Verdict.FAIL if Verdict.FAIL in found else Verdict.UNKNOWN if Verdict.UNKNOWN in found else Verdict.PASS


def nothing_moves(world: World) -> Decision:
    """Neither verb moves traffic; gives what the gate said."""
    before = weight(world)
    decision = promote(world, STAGE)
    assert not (decision.kind is Kind.DO and decision.act is Act.SET_WEIGHT), decision.why
    decision, _ = gate(world, STAGE)
    assert not (decision.kind is Kind.DO and decision.act is Act.SET_WEIGHT), decision.why
    assert weight(world) == before
    return decision


# 1 row security


HIDING = (
    "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE t FORCE ROW LEVEL SECURITY",
    "CREATE POLICY p ON t USING (current_setting('app.tenant', true) = '1')",
)


@pytest.fixture
def migrator(database: str) -> str:
    """A role that is no superuser."""
    run_sql(database, "DO $$ BEGIN CREATE ROLE migrator LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    return "migrator"


def test_hidden_rows_are_not_taken_for_no_rows(make: Make, migrator: str) -> None:
    scene = make(role=migrator)
    scene.sql(*HIDING)
    world = scene.world()
    assert [fact.broken for fact in world.database.laws(State.BASE)] == [None]
    decision = rollout(world)
    assert (decision.kind, says(decision, "laws")) == (Kind.BLOCKED, Verdict.UNKNOWN), decision
    assert state(world) is State.BASE


def test_hidden_rows_are_never_dropped(make: Make, migrator: str) -> None:
    """Row security comes when the old version has left already."""
    scene = make(role=migrator)
    world = scene.world()
    walk(world, Act.CONTRACT)
    scene.sql(*HIDING)
    with pytest.raises(ParallelChangeError):
        acts.contract(world)
    with pytest.raises(ParallelChangeError):
        world.database.apply(Phase.MIGRATE)  # what plain Alembic would run
    assert rollout(world).kind is Kind.BLOCKED
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run_pass(world, again=True)
    assert scene.sql("SELECT count(*), count(a), count(b) FROM t") == [(50, 50, 50)]


# 2 what was proven of other columns


@pytest.mark.parametrize("undone", ["revert", "killed revert", "alembic"])
def test_nothing_proven_survives_another_expand(make: Make, undone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make()
    world = scene.world()
    walk(world, Act.SET_WEIGHT)
    if undone == "alembic":
        for arguments in (("downgrade", "expand@0001"), ("upgrade", "expand@head")):
            done = alembic(scene.folder, scene.url, *arguments)
            assert done.returncode == 0, done.stderr
    else:
        world.workloads.scale(V2, 0)
        if undone == "killed revert":
            monkeypatch.setattr(world.ledger, "settle", interrupt)
            with pytest.raises(KeyboardInterrupt):
                acts.revert(world)
            monkeypatch.undo()
        else:
            acts.revert(world)
        assert state(world) is State.BASE
        acts.expand(world)
        world.workloads.scale(V2, 1)
    assert scene.sql("SELECT count(b) FROM t") == [(0,)]
    nothing_moves(world)
    assert decision_on(world).act is Act.BACKFILL
    walk(world, Act.SET_WEIGHT, weight=FULL)
    assert scene.sql("SELECT count(b) FROM t") == [(50,)]


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


# 3 rows that came later


def test_a_row_that_breaks_a_law_after_verify(make: Make) -> None:
    scene = make(LOSSY)
    world = scene.world()
    walk(world, Act.SET_WEIGHT)
    scene.sql(FOREIGN, application=OLD)
    assert says(nothing_moves(world), "laws") is Verdict.FAIL
    decision = rollout(world)
    assert (decision.kind, decision.gates, weight(world)) == (Kind.BLOCKED, ("laws",), 0)


# 4 the point of no return


@pytest.mark.parametrize("what", ["schema", "schema between", "build"])
@pytest.mark.parametrize("act", [Act.EXPAND, Act.CONTRACT])
def test_while_locks_are_waited_for_nothing_else_may_come(
    make: Make, monkeypatch: pytest.MonkeyPatch, act: Act, what: str
) -> None:
    """Its locks may be had only minutes after all was proven."""
    scene = make()
    world = scene.world()
    decision = walk(world, act)
    obs, before, apply = observe(world), state(world), world.database.apply
    late = Phase.CONTRACT if act is Act.CONTRACT and what == "schema between" else Phase.MIGRATE

    def waits(phase: Phase, **checks: Any) -> Any:
        if phase is Phase.EXPAND or phase is late:
            if what == "build":
                scene.copies.builds[V2] = "build-3"
            else:
                scene.sql("CREATE TABLE another (id int)")
        return apply(phase, **checks)

    monkeypatch.setattr(world.database, "apply", waits)
    with pytest.raises(Blocked, match="build-3" if what == "build" else "the schema"):
        acts.advance(world, obs, decision)
    assert state(world) is before
    assert world.plan.revision(Phase.MIGRATE) not in world.database.revisions.applied()


@pytest.mark.parametrize("back", ["split", "copies", "session", "stranger", "mesh"])
def test_contract_looks_a_last_time_before_its_commit(make: Make, back: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make()
    world = scene.world()
    walk(world, Act.CONTRACT)
    apply, came = world.database.apply, []

    def come_back() -> None:
        if back == "split":
            move(world, 0)
        elif back == "copies":
            scene.copies.scale(V1, 1)
        elif back == "session":
            came.append(psycopg.connect(scene.url, application_name=OLD))
        elif back == "stranger":
            came.append(psycopg.connect(scene.url, application_name="shop-v0"))
        else:
            world.router.follows = False

    def late(phase: Phase, *, checks: Any = None, last_check: Any = None) -> Any:
        def last(inside: Any) -> None:
            assert state(replace(world, database=inside)) is State.CONTRACTED
            come_back()
            last_check(inside)

        return apply(phase, checks=checks, last_check=last if phase is Phase.CONTRACT else last_check)

    monkeypatch.setattr(world.database, "apply", late)
    with pytest.raises(Blocked, match="'shop-v0'" if back == "stranger" else "drained"):
        acts.contract(world)
    for session in came:
        session.close()
    assert state(world) is State.EXPANDED
    assert world.plan.revision(Phase.MIGRATE) not in world.database.revisions.applied()
    assert scene.sql("SELECT count(a) FROM t") == [(50,)]


# 5 the mesh


@pytest.mark.parametrize("act", [Act.RETIRE, Act.CONTRACT])
def test_a_mesh_that_never_follows(make: Make, act: Act, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallelchange.rollout.decide.GRACE", 3.0)
    scene = make()
    world = scene.world()
    walk(world, act)
    world.router.follows = False
    copies = scene.copies.ready(V1)
    decision = rollout(world)
    assert decision.kind is Kind.BLOCKED
    assert Verdict.UNKNOWN in (says(decision, "soak"), says(decision, "drained"))
    assert (state(world), scene.copies.ready(V1)) == (State.EXPANDED, copies)
    if act is Act.CONTRACT:
        with pytest.raises(Blocked, match="mesh"):
            acts.contract(world)


def test_no_further_stage_while_the_mesh_does_not_follow(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallelchange.rollout.decide.GRACE", 3.0)
    scene = make()
    world = scene.world()
    walk(world, Act.SET_WEIGHT, weight=FULL)
    world.router.follows = False
    decision = rollout(world)
    assert (decision.kind, says(decision, "soak"), weight(world)) == (Kind.BLOCKED, Verdict.UNKNOWN, STAGE)


# 6 the way back


def test_no_way_back_without_copies_or_after_contract(make: Make) -> None:
    scene = make()
    world = scene.world()
    walk(world, Act.CONTRACT)
    assert scene.copies.ready(V1) == 0
    for to in (0, STAGE):
        decision = promote(world, to)
        assert (decision.kind, weight(world)) == (Kind.BLOCKED, FULL), decision.why
    assert rollout(world).kind is Kind.DONE
    for to in (0, STAGE):
        for decision in (promote(world, to), gate(world, to)[0]):
            assert (decision.kind, weight(world)) == (Kind.BLOCKED, FULL), decision.why
            assert decision.verdict is not Verdict.PASS


# 7 equal is not the same


@pytest.mark.parametrize(
    ("type_", "values", "to", "up", "down"),
    [
        ("interval", "'1 mon', '30 days'", "integer", "extract(epoch FROM a)::int / 86400", "make_interval(days => b)"),
        ("numeric", "1.5, 1.50", "double precision", "a::double precision", "b::numeric"),
        (
            "jsonb",
            """'{"n": 1.50}', '{"n": 1}'""",
            "numeric",
            "trim_scale((a ->> 'n')::numeric)",
            "jsonb_build_object('n', b)",
        ),
        ("character(5)", "'ab', 'x '", "integer", "ascii(a)", "chr(b)"),
        ("numeric[]", "'{1.0}', '{1}'", "text", "trim_scale(a[1])::text", "ARRAY[b::numeric]"),
    ],
)
def test_a_loss_that_equality_does_not_see(make: Make, type_: str, values: str, to: str, up: str, down: str) -> None:
    one, other = values.split(", ")
    ddl = (f"CREATE TABLE t (id bigint PRIMARY KEY, a {type_})",
           f"INSERT INTO t VALUES (1, {one}), (2, {other})")  # fmt: skip
    scene = make(f'- change_type: {{table: t, column: a, to: b, type: {to}, up: "{up}", down: "{down}"}}', ddl=ddl)
    world = scene.world()
    assert [fact.broken for fact in world.database.laws(State.BASE)] == [1]
    decision = rollout(world)
    assert (decision.kind, decision.gates) == (Kind.BLOCKED, ("laws",))
    acts.expand(world)
    acts.backfill(world)
    assert [fact.broken for fact in world.database.laws(State.EXPANDED)] == [1]
    with pytest.raises(SchemaState, match="break the law"):
        world.database.apply(Phase.MIGRATE)


# 8 whose session


@pytest.mark.parametrize("name", ["bücher-v1", "x" * 64, "a\tb"])
def test_a_name_that_the_server_would_show_otherwise(make: Make, name: str) -> None:
    with pytest.raises(InvalidFile, match="as another name"):
        make(names=(name, NEW))


def test_a_name_that_was_never_seen_proves_nothing(make: Make) -> None:
    scene = make(clients="[psql, something-else]")
    scene.copies.names[V1] = "something-else"
    scene.copies.scale(V1, 0)
    scene.copies.scale(V1, 1)
    world = scene.world()
    decision = rollout(world)
    assert (decision.kind, says(decision, "drained")) == (Kind.BLOCKED, Verdict.UNKNOWN)
    assert "ever seen" in decision.why
    assert state(world) is State.EXPANDED


def test_a_third_version_blocks_for_as_long_as_it_is_connected(make: Make) -> None:
    scene = make()
    world = scene.world()
    for act, at in ((Act.EXPAND, None), (Act.SET_WEIGHT, None), (Act.SET_WEIGHT, FULL), (Act.CONTRACT, None)):
        walk(world, act, weight=at)
        before = weight(world), state(world)
        with psycopg.connect(scene.url, application_name="shop-v0"):
            decision = rollout(world)
            assert (decision.kind, decision.gates, weight(world), state(world)) == (
                Kind.BLOCKED,
                ("versions",),
                *before,
            )
            assert "'shop-v0'" in decision.why
        wait_for(scene, "shop-v0")
    assert rollout(world).kind is Kind.DONE


def wait_for(scene: Scene, name: str) -> None:
    """The server shows a session for a moment after its end."""
    asked = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'"
    while scene.sql(asked) != [(0,)]:
        time.sleep(0.01)


def test_a_version_that_is_asked_for_comes_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of its copies is ready, as they crash one after the other."""
    scene = make()
    world = scene.world()
    walk(world, Act.CONTRACT)
    monkeypatch.setattr(scene.copies, "wanted", lambda version: 1)
    assert decision_on(world).act is Act.RETIRE
    with pytest.raises(Blocked, match="asked for"):
        acts.contract(world)
    with pytest.raises(Unavailable, match="still asked for"):
        rollout(world)
    assert state(world) is State.EXPANDED


# 9 approvals


def approved(make: Make, operations: str = LOSSY) -> tuple[Scene, World]:
    scene = make(operations)
    world = scene.world()
    walk(world, Act.SET_WEIGHT)
    decision, _ = gate(world, STAGE)
    assert decision.act is Act.SET_WEIGHT
    return scene, world


def test_what_the_gate_approved_is_adopted(make: Make) -> None:
    _, world = approved(make)
    move(world, STAGE)
    assert decision_on(world).act is Act.ADOPT


def test_a_gate_that_fails_takes_its_approval_back(make: Make) -> None:
    scene, world = approved(make)
    scene.sql(FOREIGN, application=OLD)
    decision, _ = gate(world, STAGE)
    assert says(decision, "laws") is Verdict.FAIL
    move(world, STAGE)
    assert decision_on(world).kind is Kind.HALTED


def test_a_promote_that_fails_takes_the_approval_back(make: Make) -> None:
    scene, world = approved(make)
    scene.sql(FOREIGN, application=OLD)
    assert promote(world, STAGE).kind is Kind.BLOCKED
    move(world, STAGE)
    assert decision_on(world).kind is Kind.HALTED


def test_an_approval_is_of_one_moment(make: Make) -> None:
    scene, world = approved(make)
    move(world, 100)
    assert decision_on(world).kind is Kind.HALTED, "another weight than was approved"
    move(world, STAGE)
    assert decision_on(world).act is Act.ADOPT
    assert decision_on(replace(world, plan=replace(world.plan, digest="another"))).kind is Kind.HALTED
    scene.sql("CREATE TABLE another (id int)")
    assert decision_on(world).kind is Kind.HALTED
    scene.sql("DROP TABLE another")
    assert decision_on(world).act is Act.ADOPT
    scene.clock.slept += world.plan.change.max_age + 1
    assert decision_on(world).kind is Kind.HALTED


def test_an_approval_is_of_one_expand(make: Make) -> None:
    _, world = approved(make)
    move(world, STAGE)
    world.database.revert()
    world.database.apply(Phase.EXPAND)
    assert decision_on(world).kind is Kind.HALTED


def test_evidence_that_is_forgotten_takes_its_approval_with_it(make: Make) -> None:
    _, world = approved(make)
    world.ledger.reset_evidence("a row was changed by somebody")
    move(world, STAGE)
    assert decision_on(world).kind is Kind.HALTED


def test_an_approval_is_of_what_runs(make: Make) -> None:
    """A build that nobody proved gets no traffic by an approval that was given for another one."""
    scene, world = approved(make)
    build, scene.copies.builds[V2] = scene.copies.builds[V2], "build-3"
    move(world, STAGE)
    assert decision_on(world).kind is Kind.HALTED
    scene.copies.builds[V2] = build
    assert decision_on(world).act is Act.ADOPT


# 10 the time of evidence


@pytest.mark.parametrize("verb", ["gate", "promote", "rollout"])
def test_what_was_seen_before_the_laws_were_measured_is_looked_at_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """On a large table that takes minutes, in which the trigger may go or another build come."""
    scene = make()
    world = scene.world()
    walk(world, Act.SET_WEIGHT)
    laws = world.database.laws

    def slow(of: State) -> Any:
        found = laws(of)
        scene.copies.builds[V2] = "build-3"
        return found

    monkeypatch.setattr(world.database, "laws", slow)
    if verb == "gate":
        decision, _ = gate(world, STAGE)
        assert not (decision.kind is Kind.DO and decision.act is Act.SET_WEIGHT), decision.why
        record = world.ledger.read()
        assert record is not None
        assert (record.pending or {}).get("act") != Act.APPROVE
    elif verb == "promote":
        decision = promote(world, STAGE)
        assert not (decision.kind is Kind.DO and decision.act is Act.SET_WEIGHT), decision.why
    else:
        moved: list[str] = []
        monkeypatch.setattr(acts, "set_weight", lambda *_: moved.append(str(scene.copies.builds)) or interrupt())
        before = scene.rehearsals
        with suppress(KeyboardInterrupt):
            rollout(world)
        assert not moved or scene.rehearsals > before, "proven anew before traffic moved"
    assert weight(world) == 0


def test_evidence_is_as_old_as_what_it_was_measured_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traffic moves and a row breaks while it is measured: the verdict does not count afterwards."""
    scene = make(LOSSY)
    world, other = scene.world(), scene.world()
    walk(world, Act.SET_WEIGHT)
    statements = other.database.statements

    def meanwhile(version: Any) -> Any:
        if weight(world) == 0:
            assert promote(world, STAGE).act is Act.SET_WEIGHT
        return statements(version)

    monkeypatch.setattr(other.database, "statements", meanwhile)
    measure(other, observe(other))
    assert weight(world) == STAGE
    decision = decision_on(world)
    assert (decision.act, says(decision, "laws")) == (Act.VERIFY, Verdict.UNKNOWN)


def test_evidence_has_the_time_before_it_was_measured(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make()
    world = scene.world()
    began: list[float] = []
    laws = world.database.laws

    def slow(of: State) -> Any:
        began.append(world.database.now())
        return laws(of)

    def slow_rehearsal() -> Any:
        began.append(world.database.now())
        return scene.rehearse()

    monkeypatch.setattr(world.database, "laws", slow)
    for measuring in (measure, measure_laws, lambda w, _: rehearse(w)):
        began.clear()
        measuring(replace(world, rehearse=slow_rehearsal), observe(world))
        newest = max(item.measured_at for item in world.ledger.evidence())
        assert newest <= began[0]


# 11 copies


def test_no_traffic_without_copies_of_a_known_build(make: Make) -> None:
    scene = make()
    world = scene.world()
    walk(world, Act.SET_WEIGHT)
    for version in (V1, V2):
        scene.copies.scale(version, 0)
        assert says(nothing_moves(world), "copies") is Verdict.FAIL
        assert (rollout(world).kind, weight(world)) == (Kind.BLOCKED, 0)
        scene.copies.scale(version, 1)
        build, scene.copies.builds[version] = scene.copies.builds[version], None
        assert says(nothing_moves(world), "copies") is Verdict.UNKNOWN
        assert (rollout(world).kind, weight(world)) == (Kind.BLOCKED, 0)
        scene.copies.builds[version] = build


# 12 and 17 what cannot be kept in step


@pytest.mark.parametrize(("up", "down"), [("substr(a, length(pre))", "b"), ("a", "pre || b"), ("a", "t.pre || b")])
def test_an_expression_over_another_column(make: Make, up: str, down: str) -> None:
    ddl = ("CREATE TABLE t (id bigint PRIMARY KEY, a text, pre text DEFAULT 'x')",)
    split = f'- split_column: {{table: t, column: a, into: {{b: text}}, up: {{b: "{up}"}}, down: "{down}"}}'
    with pytest.raises(InvalidFile, match="pre"):
        make(split, ddl=ddl)


CHILD = ("CREATE TABLE kid () INHERITS (t)",)
LATER = (
    "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.a := upper(NEW.a); RETURN NEW; END'",
    "CREATE TRIGGER zzz BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION shout()",
)


@pytest.mark.parametrize("ddl", [CHILD, LATER])
def test_a_table_whose_shapes_could_part(make: Make, ddl: tuple[str, ...]) -> None:
    with pytest.raises(InvalidFile, match=r"children|fire after ours"):
        make(ddl=(TABLE, *ddl))


@pytest.mark.parametrize(("until", "ddl"), [(None, CHILD), (Act.SET_WEIGHT, CHILD), (Act.SET_WEIGHT, LATER)])
def test_shapes_that_could_part_since_the_plan(make: Make, ddl: tuple[str, ...], until: Act | None) -> None:
    scene = make()
    world = scene.world()
    if until:
        walk(world, until)
    scene.sql(*ddl)
    with suppress(SchemaState):
        assert rollout(world).kind is Kind.BLOCKED
    assert weight(world) == 0
    assert scene.sql("SELECT count(a) FROM t") == [(50,)]


def run_pass(world: World, *, again: bool = False) -> list[Any]:
    """Run the backfill on a session of its own; gives the settings it leaves behind, and those of a fresh one."""
    (work,) = world.plan.backfills
    shown = "SELECT nullif(current_setting('parallelchange.backfill', true), ''), current_setting('search_path')"
    with connect(world.database.url) as session, connect(world.database.url) as fresh:
        if again:
            session.execute("UPDATE parallelchange.backfill SET finished_at = NULL, cursor = NULL")
        run_backfill(
            session,
            world.plan.change.name,
            work,
            world.plan.base.tables[work.table],
            rows_per_second=None,
            progress=lambda *_: None,
            incarnation=incarnation_of(world.database.catalog()),
        )
        return [each.execute(shown).fetchone() for each in (session, fresh)]


def test_the_backfill_leaves_its_session_as_it_was(make: Make) -> None:
    """Behind a pooler somebody else gets the session next."""
    world = make().world()
    walk(world, Act.BACKFILL)
    used, fresh = run_pass(world)
    assert used == fresh


# 13 the fingerprint


def test_the_fingerprint_sees_what_a_statement_could_trip_over(make: Make) -> None:
    scene = make(
        ddl=(
            TABLE,
            ROWS,
            "CREATE FUNCTION std(x text) RETURNS text LANGUAGE sql RETURN x",
            "CREATE FUNCTION plain(x int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE TYPE pair AS (a int)",
            "CREATE TABLE other (a text)",
            "CREATE VIEW v AS SELECT id FROM t",
        )
    )
    world = scene.world()
    seen = world.database.catalog().fingerprint
    for change in (
        "CREATE OR REPLACE FUNCTION std(x text) RETURNS text LANGUAGE sql RETURN x || '!'",
        "CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING",
        "ALTER FUNCTION plain(int) SECURITY DEFINER",
        "ALTER FUNCTION plain(int) VOLATILE STRICT",
        'ALTER TABLE other ALTER COLUMN a TYPE text COLLATE "C"',
        "ALTER TABLE t FORCE ROW LEVEL SECURITY",
        "ALTER TYPE pair ADD ATTRIBUTE b text",
        "ALTER VIEW v SET (security_invoker = true)",
    ):
        scene.sql(change)
        now = world.database.catalog().fingerprint
        assert now != seen, change
        seen = now


# 15 statements that show nothing


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE t SET a = $2 WHERE id = $1",
        "WITH done AS (UPDATE t SET a = $2 WHERE id = $1 RETURNING id) SELECT count(*) AS n FROM done",
        "INSERT INTO t (id, a) SELECT id + 1000, $2 FROM t WHERE id = $1",
    ],
)
def test_a_write_that_found_no_row_is_no_proof(make: Make, sql: str) -> None:
    columns = ["n bigint"] if sql.startswith("WITH") else []
    for_new = recorded("SELECT id, b FROM t", ["id bigint", "b integer"])
    for_old = recorded(sql, columns, ["bigint", "text"], [("7001", "n/a")])
    scene = make(
        "- change_type: {table: t, column: a, to: b, type: integer}",
        ddl=(TABLE, "INSERT INTO t SELECT g, g::text FROM generate_series(1, 50) g"),
        old=[for_old],
        new=[for_new],
    )
    world = scene.world()
    found = Rehearsal(world.plan, world.database, scene.copies.builds, lambda _: None).all()  # on the scratch itself
    verdicts = {(i.key.version, i.state): i.result.verdict for i in found if i.key.gate == "execute"}
    assert verdicts[V1, State.BASE] is Verdict.UNKNOWN
    assert verdicts[V1, State.EXPANDED] is Verdict.UNKNOWN
    assert verdicts[V2, State.EXPANDED] is Verdict.PASS


@pytest.mark.parametrize("fails", [True, False])
def test_what_a_rehearsal_has_found_is_not_forgotten_when_it_breaks_off(
    make: Make, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """An older rehearsal, in which all went well, would go on counting."""
    idle = recorded("UPDATE t SET a = $2 WHERE id = $1", [], ["bigint", "text"], [("7001", "x")])
    scene = make(old=[idle]) if fails else make()
    world = scene.world()

    def breaks_off(_: Any) -> None:
        raise Unavailable("the server went away")

    monkeypatch.setattr(Rehearsal, "_round_trips", breaks_off)
    rehearsal = Rehearsal(world.plan, world.database, scene.copies.builds, lambda _: None)
    if not fails:
        with pytest.raises(Unavailable, match="went away"):
            rehearsal.all()
        return
    found = rehearsal.all()
    assert Verdict.UNKNOWN in {item.result.verdict for item in found if item.key.gate == "execute"}
    last = next(item for item in found if item.key.gate == "rehearsal" and item.state is State.CONTRACTED)
    assert last.result.verdict is Verdict.FAIL
    assert "it broke off once expanded: the server went away" in last.result.findings[0].message


def test_a_corpus_that_changes_while_it_is_rehearsed_is_not_the_one_that_was_rehearsed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make()
    world = scene.world()

    def and_then_it_is_recorded_again(*arguments: Any, **options: Any) -> Any:
        found = execute_all(*arguments, **options)
        if arguments[1] == NEW and state(world) is State.EXPANDED:
            again = recorded("SELECT id, b FROM t", ["id bigint", "b text"])
            write_corpus(scene.folder / "v2.json", corpus_of(V2, [again]))
        return found

    monkeypatch.setattr("parallelchange.local.rehearse.execute_all", and_then_it_is_recorded_again)
    rehearsal = Rehearsal(world.plan, world.database, scene.copies.builds, lambda _: None)
    with pytest.raises(Busy, match="changed while they were rehearsed"):
        rehearsal.all()
    now = corpora(world.plan)[V2]
    assert now not in {item.key.statements for item in rehearsal.evidence}
    assert {item.result.gate for item in rehearsal.evidence if item.key.version == V2} >= {"prepare", "execute"}


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t (id, b) VALUES (1000001, uuidv7()::text)",
        "MERGE INTO t USING (VALUES (1)) v(i) ON t.id = v.i WHEN MATCHED THEN UPDATE SET b = 'x' RETURNING t.id",
    ],
)
def test_what_only_a_newer_server_takes_is_not_proven_by_one(contrib: str, tmp_path: Path, sql: str) -> None:
    """What writes is not asked on the live database, so that the copy's server must be like it."""
    with psycopg.connect(contrib, autocommit=True) as connection:
        connection.execute("DROP EXTENSION pg_stat_statements")
    sent = recorded(sql, ["id bigint"] if "RETURNING" in sql else [])
    with scene_of(contrib, tmp_path / "shop", new=[sent]) as scene:
        plan = scene.world().plan
        made = {
            on: rehearse_on_copy(plan, scene.url, scene.ini, scene.copies.builds, lambda _: None, on=on)
            for on in (None, contrib)
        }
    found = {
        on: {(item.key.gate, item.state): item.result for item in rehearsal.evidence if item.key.version in (V2, "*")}
        for on, rehearsal in made.items()
    }
    for state in (State.BASE, State.EXPANDED, State.CONTRACTED):
        newer = found[None]["rehearsal", state]
        assert (newer.verdict, [f.id for f in newer.findings]) == (Verdict.UNKNOWN, ["rehearsal.version"])
        assert found[contrib]["rehearsal", state].verdict is Verdict.PASS
    assert found[None]["execute", State.EXPANDED].verdict is Verdict.PASS
    assert found[contrib]["execute", State.EXPANDED].verdict is not Verdict.PASS


# 16 what came to the old column


@pytest.mark.parametrize(
    ("until", "ddl"),
    [
        (None, "CREATE UNIQUE INDEX u ON t (a)"),
        (None, "ALTER TABLE t ALTER COLUMN a SET DEFAULT 'x'"),
        (Act.CONTRACT, "CREATE UNIQUE INDEX u ON t (a)"),
        (Act.CONTRACT, "CREATE INDEX u ON t (id) WHERE a IS NOT NULL"),
        (Act.CONTRACT, "CREATE VIEW u AS SELECT a FROM t"),
        (Act.CONTRACT, "ALTER TABLE t ALTER COLUMN a SET DEFAULT 'x'"),
    ],
)
def test_what_came_to_the_old_column_since_the_plan(make: Make, ddl: str, until: Act | None) -> None:
    scene = make()
    world = scene.world()
    if until:
        walk(world, until)
    before = state(world)
    scene.sql(ddl)
    with pytest.raises(SchemaState, match=r"in the plan|no longer as it was"):
        rollout(world)
    with pytest.raises(Blocked):
        (acts.contract if until else acts.expand)(world)
    scene.sql("DROP INDEX u" if "INDEX" in ddl else "DROP VIEW u" if "VIEW" in ddl else "SELECT a FROM t")
    if "DEFAULT" not in ddl:
        assert state(world) is before


# 18 both shapes in one INSERT


def test_an_insert_of_both_shapes_beside_a_constant_default(make: Make) -> None:
    scene = make(ddl=("CREATE TABLE t (id bigint PRIMARY KEY, a text NOT NULL DEFAULT 'new')",))
    scene.world().database.apply(Phase.EXPAND)
    for name in (OLD, NEW, "psql"):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match=r"a-change.*disagree"):
            scene.sql("INSERT INTO t (id, a, b) VALUES (1, 'paid', 'open')", application=name)
    scene.sql("INSERT INTO t (id, a, b) VALUES (2, 'paid', 'paid')")
    scene.sql("INSERT INTO t (id) VALUES (3)", application=OLD)
    scene.sql("INSERT INTO t (id, b) VALUES (4, 'open')", application=NEW)
    scene.sql("INSERT INTO t (id, b) VALUES (5, 'open')")
    expected = [(2, "paid", "paid"), (3, "new", "new"), (4, "open", "open"), (5, "open", "open")]
    assert scene.sql("SELECT id, a, b FROM t ORDER BY id") == expected


# 19 whose settings


@pytest.mark.parametrize(
    ("type_", "to", "literal"),
    [("timestamptz", "timestamp", "2024-01-01 12:00+00"), ("date", "text", "2024-02-01"), ("interval", "text", "26 h")],
)
def test_the_settings_of_the_writer_do_not_matter(make: Make, type_: str, to: str, literal: str) -> None:
    table = f"CREATE TABLE t (id bigint PRIMARY KEY, a {type_})"
    rows = f"INSERT INTO t VALUES (0, '{literal}')"
    scene = make(f"- change_type: {{table: t, column: a, to: b, type: {to}}}", ddl=(table, rows))
    strange = ("timezone = 'America/New_York'", "datestyle = 'SQL, DMY'", "intervalstyle = 'iso_8601'")
    scene.configure(*strange)
    world = scene.world()
    acts.expand(world)
    plain = ("timezone = 'UTC'", "datestyle = 'ISO'", "intervalstyle = 'postgres'")
    for key, settings in ((1, strange), (2, plain)):
        scene.sql(
            *(f"SET {s}" for s in settings), f"INSERT INTO t (id, a) VALUES ({key}, '{literal}')", application=OLD
        )
    acts.backfill(world)
    assert scene.sql("SELECT count(DISTINCT b::text), count(b) FROM t") == [(1, 3)]
    assert [fact.broken for fact in world.database.laws(State.EXPANDED)] == [0]
    world.database.apply(Phase.MIGRATE)


# 20 between migrate and contract


NOT_NULL = """
- split_column: {table: t, column: a, into: {b: {type: text, not_null: true}}, up: {b: a}, down: b}
"""


def test_killed_between_migrate_and_contract_it_goes_on(make: Make) -> None:
    scene = make(NOT_NULL)
    world = scene.world()
    walk(world, Act.CONTRACT)
    world.database.apply(Phase.MIGRATE)
    decision = rollout(scene.world())
    assert (decision.kind, state(world)) == (Kind.DONE, State.CONTRACTED), decision.why


def test_killed_between_migrate_and_contract_it_can_be_aborted(make: Make) -> None:
    scene = make(NOT_NULL)
    world = scene.world()
    walk(world, Act.CONTRACT)
    world.database.apply(Phase.MIGRATE)
    write = "INSERT INTO t (id, a) VALUES (100, NULL)"
    with pytest.raises(psycopg.errors.CheckViolation):
        scene.sql(write, application=OLD)
    acts.abort(world, "a test")
    scene.sql(write, application=OLD)
    assert (state(world), weight(world), scene.copies.ready(V1)) == (State.EXPANDED, 0, 1)


# 21 no endless loop


def test_a_rehearsal_on_another_schema_is_made_once(make: Make) -> None:
    """An invalid index on the live database is valid on the copy, or not there."""
    scene = make()

    def elsewhere() -> list[Any]:
        return [replace(item, key=replace(item.key, fingerprint="another")) for item in scene.rehearse()]

    decision = rollout(replace(scene.world(), rehearse=elsewhere))
    assert (decision.kind, scene.rehearsals) == (Kind.BLOCKED, 1)


def test_evidence_that_is_too_old_at_once_is_measured_once(make: Make) -> None:
    scene = make(extra="evidence: {max_age: 1ms}")
    world = scene.world()
    decision = rollout(world)
    assert decision.kind is Kind.BLOCKED
    assert len({item.run for item in world.ledger.evidence()}) <= 2
    assert state(world) is State.BASE


# 22 and 26 abort


@pytest.mark.parametrize("when", ["a weight was decided", "a weight was set"])
def test_an_abort_stops_a_rollout_that_runs(make: Make, when: str) -> None:
    scene = make()
    other = scene.world()
    told: list[str] = []

    def tell(event: Any) -> None:
        decided = event.kind == "decision" and event.data["decision"].act is Act.SET_WEIGHT
        if not told and (decided if when == "a weight was decided" else event.kind == "weight"):
            told.append(event.what)
            acts.abort(other, "somebody saw something")
            assert weight(other) == 0, "at once, though the rollout holds the fence"

    decision = rollout(scene.world(tell))
    assert told
    assert decision.kind in (Kind.HALTED, Kind.BLOCKED), decision.why
    assert "somebody saw something" in decision.why
    assert (weight(other), state(other)) == (0, State.EXPANDED)


def test_after_an_abort_only_again_goes_on(make: Make) -> None:
    scene = make()
    world = scene.world()
    walk(world, Act.SET_WEIGHT, weight=FULL)
    acts.abort(world, "a test")
    decision = rollout(world)
    assert (decision.kind, weight(world)) == (Kind.BLOCKED, 0)
    assert "a test" in decision.why
    assert rollout(world, again=True).kind is Kind.DONE
    assert state(world) is State.CONTRACTED


# 24 keys that move


def test_a_row_that_moved_behind_the_cursor_is_filled(make: Make) -> None:
    scene = make(ddl=(TABLE, "INSERT INTO t SELECT g, 'x' || g FROM generate_series(1, 2500) g"))
    world = scene.world()
    walk(world, Act.BACKFILL)
    moved: list[int] = []

    def meanwhile(_what: str, done: int, _total: int | None) -> None:
        if not moved:
            moved.append(done)
            scene.sql("UPDATE t SET id = -1 WHERE id = 2400", application=OLD)

    world.database.backfill(meanwhile)
    assert moved
    assert moved[0] < 2400
    assert scene.sql("SELECT a, b FROM t WHERE id = -1 OR b IS NULL") == [("x2400", "x2400")]


# 25 what was mended


def test_evidence_that_failed_before_is_measured_anew(make: Make) -> None:
    scene = make(LOSSY, ddl=(TABLE, ROWS, FOREIGN))
    world = scene.world()
    assert rollout(world).gates == ("laws",)
    scene.sql("UPDATE t SET a = 'Mary Ann' WHERE id = 99")
    assert rollout(world).kind is Kind.DONE


# 27 migrations of the app


def test_expand_runs_no_migration_but_its_own(make: Make) -> None:
    scene = make(ddl=(TABLE, ROWS, "CREATE TABLE audit (x int)"), pending="DROP TABLE audit")
    world = scene.world()
    with pytest.raises(SchemaState, match="0002"):
        acts.expand(world)
    with pytest.raises(SchemaState, match="0002"):
        rollout(world)
    assert scene.sql("SELECT to_regclass('audit') IS NOT NULL") == [(True,)]
    assert state(world) is State.BASE


# 28 revert


def test_revert_looks_at_the_traffic_in_its_own_transaction(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make()
    world = scene.world()
    walk(world, Act.SET_WEIGHT)
    world.workloads.scale(V2, 0)
    revert = world.database.revert

    def late(**options: Any) -> Any:
        move(world, STAGE)
        return revert(**options)

    monkeypatch.setattr(world.database, "revert", late)
    with pytest.raises(Refused, match="traffic"):
        acts.revert(world)
    assert state(world) is State.EXPANDED


# 29 secrets


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:S3CRET@127.0.0.1:port/shop",
        "postgresql://me:S3CRET@127.0.0.1:1/shop",
        "postgresql://me:S3CRET@[::1/shop",
        "postgresql://me:S3CRET%@127.0.0.1/shop",
        "postgresql://me:S3CRET%zz@127.0.0.1/shop",
        "postgresql://me:S3C/S3CRET@127.0.0.1:1/shop",
        "postgresql://me:9#S3CRET@127.0.0.1:1/shop",
        "postgresql://me:9/S3CRET@127.0.0.1:1/shop",
        "postgresql://me:9?S3CRET@127.0.0.1:1/shop",
        "postgresql://me:9@S3CRET@127.0.0.1:1/shop",
        "postgresql://me:S3CRET:127.0.0.1:1/shop",
        "postgresql://me:S3CRET@127.0.0.1:1/shop?no=such",
        "postgresql:/me:S3CRET@127.0.0.1:1/shop",
        "postgresql//me:S3CRET@127.0.0.1:1/shop",
        "me:S3CRET@127.0.0.1:1/shop",
        "host=127.0.0.1 port=abc password=S3CRET",
        "host=127.0.0.1 port=1 password='S3CRET",
        "host=127.0.0.1 port=1 passwort=S3CRET",
    ],
)
def test_no_message_holds_a_password(url: str) -> None:
    with pytest.raises(Unavailable) as caught:
        connect(url)
    assert "S3C" not in str(caught.value)
    assert caught.value.__cause__ is None


# 31 the command line


def run_cli(scene: Scene, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PARALLELCHANGE_")}
    return subprocess.run(
        [sys.executable, "-m", "parallelchange", arguments[0], str(scene.change), *arguments[1:]],
        cwd=scene.folder, env={**kept, "PARALLELCHANGE_DATABASE_URL": scene.url},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def read_only(scene: Scene) -> None:
    scene.world()
    scene.configure("default_transaction_read_only = on")


def no_rights(scene: Scene) -> None:
    scene.sql("CREATE SCHEMA parallelchange", "CREATE TABLE parallelchange.alembic_version (version_num text)")


def wrong_lock(scene: Scene) -> None:
    scene.change.with_suffix(".lock.json").write_text('{"format": 1, "types": [], "tables": [{"name": 5}]}')


def wrong_columns(scene: Scene) -> None:
    lock = scene.change.with_suffix(".lock.json")
    lock.write_text(lock.read_text().replace('"generated": false', '"generated": {}').replace('"nullable"', '"nil"'))


def wrong_ini(scene: Scene) -> None:
    scene.ini.write_text("\0 no [ini\n%%%(")


def wrong_revision(scene: Scene) -> None:
    (scene.folder / "migrations" / "versions" / "0001.py").write_text("def upgrade(:\n")


@pytest.mark.parametrize(
    ("spoil", "arguments"),
    [
        (read_only, ("verify",)),
        (no_rights, ("rollout",)),
        (wrong_lock, ("status",)),
        (wrong_columns, ("status",)),
        (wrong_ini, ("rollout",)),
        (wrong_revision, ("expand",)),
    ],
)
def test_the_command_line_never_falls_over(
    make: Make, migrator: str, spoil: Callable[[Scene], None], arguments: tuple[str, ...]
) -> None:
    scene = make(role=migrator)
    spoil(scene)
    done = run_cli(scene, *arguments)
    assert done.returncode in (2, 3), done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.startswith("error: ")


# revert, while the new version still runs


def test_revert_waits_for_the_new_version_to_stop(make: Make) -> None:
    scene = make()
    world = scene.world()
    walk(world, Act.SET_WEIGHT)
    with pytest.raises(Refused, match="copies of"):
        acts.revert(world)
    assert state(world) is State.EXPANDED


# an abort that was killed


def test_a_killed_abort_is_finished_by_the_next_rollout(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make()
    world = scene.world()
    walk(world, Act.SET_WEIGHT, weight=FULL)
    assert world.router.get().weight == STAGE
    monkeypatch.setattr(world.router, "set", interrupt)
    with pytest.raises(KeyboardInterrupt):
        acts.abort(world, "seen by somebody")
    monkeypatch.undo()
    assert world.router.get().weight == STAGE, "it was killed before traffic moved"
    assert rollout(world).act is Act.ABORT
    assert world.router.get().weight == 0
    assert rollout(world).kind is Kind.BLOCKED
