"""A finding names the DDL after which a statement fails."""

from __future__ import annotations

from pathlib import Path

from helpers.world import V1, V2, make_scene, recorded

from parallelchange.local.rehearse import Rehearsal
from parallelchange.model import GateResult, State, Verdict

DDL = (
    "CREATE TABLE t (id bigint PRIMARY KEY, a text)",
    "INSERT INTO t SELECT g, 'x' || g FROM generate_series(1, 9) g",
)


def rehearsed(database: str, folder: Path, **versions: object) -> dict[tuple[str, str, State], GateResult]:
    """The verdicts of a rehearsal on the scratch itself: gate, version and state to result."""
    scene = make_scene(database, folder, ddl=DDL, **versions)  # type: ignore[arg-type]
    try:
        world = scene.world()
        found = Rehearsal(world.plan, world.database, scene.copies.builds, lambda _: None).all()  # type: ignore[arg-type]
        return {(item.key.gate, item.key.version, item.state): item.result for item in found}
    finally:
        scene.close()


def test_expand_is_told(database: str, tmp_path: Path) -> None:
    old = [
        recorded("SELECT * FROM t", ["id bigint", "a text"]),
        recorded("COPY t FROM STDIN"),
        recorded("SELECT id FROM t", ["id bigint"]),
    ]
    found = rehearsed(database, tmp_path, old=old)
    for gate in ("shape", "execute"):
        assert found[gate, V1, State.BASE].verdict is Verdict.PASS
        result = found[gate, V1, State.EXPANDED]
        assert result.verdict is Verdict.FAIL
        for finding in result.findings:
            assert finding.message.endswith("; since `ALTER TABLE public.t ADD COLUMN b text`"), finding.message
    assert len(found["execute", V1, State.EXPANDED].findings) == 2


def test_contract_is_told(database: str, tmp_path: Path) -> None:
    new = [
        recorded("SELECT count(*) AS n FROM t WHERE a = $1 OR b = $1", ["n bigint"], ["text"], [("x1",)]),
        recorded("INSERT INTO t (id) VALUES ($1)", types=["bigint"], parameters=[("1000",)]),
        recorded("SELECT id FROM t", ["id bigint"]),
    ]
    found = rehearsed(database, tmp_path, new=new)
    assert found["execute", V2, State.EXPANDED].verdict is Verdict.PASS
    for gate in ("prepare", "execute"):
        result = found[gate, V2, State.CONTRACTED]
        assert result.verdict is Verdict.FAIL
        (finding,) = result.findings
        assert finding.message.endswith("; since `ALTER TABLE public.t DROP COLUMN a`"), finding.message
        assert "column" in finding.message
