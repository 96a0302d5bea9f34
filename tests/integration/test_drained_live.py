"""The old version's statements, counted by a real server through a whole rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.world import V1, Scene, decision_on, recorded, run_sql, scene_of, walk

from parallelchange.errors import Blocked
from parallelchange.gates.base import Act
from parallelchange.model import Phase, State, Verdict
from parallelchange.rollout import advance as acts
from parallelchange.rollout.decide import Decision, Kind
from parallelchange.rollout.observe import observe
from parallelchange.rollout.run import rollout
from parallelchange.rollout.world import World

SENT = "SELECT id, a FROM t WHERE id = $1"
DRAIN = 5.0


@contextmanager
def shop(url: str, folder: Path) -> Iterator[Scene]:
    both = recorded("SELECT id FROM t", ["id bigint"])
    alone = recorded(SENT, ["id bigint", "a text"], ["bigint"], [["1"]])
    with scene_of(url, folder, old=(both, alone), new=(both,), drain=f"{DRAIN:g}s", clients="[psql, pooler]") as scene:
        yield scene


def send(scene: Scene, text: str = "select id, a\n from t where id = 7") -> None:
    """As a worker that works through a pooler does: the session bears the pooler's name."""
    run_sql(scene.admin, text, application="pooler")


def gone(scene: Scene) -> bool:
    return scene.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pooler'") == [(0,)]


def drained(decision: Decision) -> tuple[Verdict, str]:
    (result,) = (r for r in decision.results if r.gate == "drained")
    return result.verdict, " ".join(finding.message for finding in result.findings)


def during_waits(world: World, do: Callable[[], None]) -> World:
    def pause(seconds: float) -> None:
        do()
        world.clock.sleep(seconds)

    return World(**{**world.__dict__, "pause": pause})


def test_a_quiet_old_version_is_drained(contrib: str, tmp_path: Path) -> None:
    with shop(contrib, tmp_path) as scene:
        send(scene)
        told: list[Decision] = []
        world = scene.world(lambda event: told.append(event.data["decision"]) if event.kind == "decision" else None)
        assert rollout(world).kind is Kind.DONE
        (last,) = (decision for decision in told if decision.act is Act.CONTRACT)
        verdict, said = drained(last)
        assert verdict is Verdict.PASS
        assert f"1 statements are {V1}'s alone, and 0 of them the server has never counted" in said


def test_a_worker_behind_a_pooler_is_not(contrib: str, tmp_path: Path) -> None:
    with shop(contrib, tmp_path) as scene:
        world = scene.world()
        walk(world, Act.SET_WEIGHT, weight=1000)
        decision = rollout(during_waits(world, lambda: send(scene)))
        verdict, said = drained(decision)
        assert (decision.kind, verdict) == (Kind.BLOCKED, Verdict.FAIL)
        assert "calls of `select id , a from t where id = ?` by role postgres" in said
        assert observe(world).state is State.EXPANDED
        # Once it has stopped, they come to stand still by themselves.
        world.clock.sleep(DRAIN)
        assert rollout(world).kind is Kind.DONE


def test_another_process_goes_on_where_a_killed_one_has_looked(contrib: str, tmp_path: Path) -> None:
    with shop(contrib, tmp_path) as scene:
        walk(scene.world(), Act.CONTRACT)
        world = scene.world()
        seen = observe(world)
        assert seen.record is not None
        assert seen.record.calls is not None
        assert seen.calls is not None
        assert (seen.calls.seconds or 0) >= DRAIN
        assert decision_on(world).act is Act.CONTRACT
        send(scene)
        assert "1 calls" in drained(decision_on(world))[1]


@pytest.mark.parametrize("what", ["call", "prepared", "reset"])
def test_contract_counts_a_last_time_before_its_commit(
    contrib: str, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop(contrib, tmp_path) as scene, psycopg.connect(contrib, autocommit=True, application_name="psql") as other:
        other.execute("CREATE TABLE elsewhere (id int, a text)")
        world = scene.world()
        walk(world, Act.CONTRACT)
        apply = world.database.apply

        def come() -> None:
            if what == "call":  # of its own table: the real one is locked
                other.execute("SET search_path = pg_temp, public")
                other.execute("CREATE TEMP TABLE t (id bigint, a text)")
                other.execute("SELECT id, a FROM t WHERE id = 7")
            elif what == "prepared":
                other.execute("BEGIN")
                other.execute("INSERT INTO elsewhere VALUES (1)")
                other.execute("PREPARE TRANSACTION 'left-over'")
            else:
                other.execute("SELECT pg_stat_statements_reset()")

        def late(phase: Phase, *, checks: Any = None, last_check: Any = None) -> Any:
            def last(inside: Any) -> None:
                come()
                last_check(inside)

            return apply(phase, checks=checks, last_check=last if phase is Phase.CONTRACT else last_check)

        monkeypatch.setattr(world.database, "apply", late)
        try:
            with pytest.raises(Blocked, match={"call": "1 calls", "prepared": "left-over", "reset": "reset"}[what]):
                acts.contract(world)
        finally:
            if what == "prepared":
                other.execute("ROLLBACK PREPARED 'left-over'")
        assert observe(world).state is State.EXPANDED
