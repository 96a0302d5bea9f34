"""Evidence counts for what it was measured on, to the byte: what differs blocks and is named, in whatever ledger."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.world import ROWS, TABLE, make_scene, recorded, run_sql
from psycopg import sql

from acceptance.conftest import Ran, run
from parallelchange.adapters.local_files import MESH, RUNTIME, SUPERVISOR_LOCK, TRAFFIC_SPLIT, write_object
from parallelchange.adapters.local_router import LocalRouter

V1, V2 = "v1", "v2"
CHANGE = "change.yaml"
SHA = "sha256:"
BUILDS = {V1: SHA + "a" * 64, V2: SHA + "b" * 64}
OTHER = SHA + "c" * 64
NEXT = "CREATE OR REPLACE FUNCTION next_of(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN n + 1; END $$"
DDL = (TABLE, ROWS, NEXT)
SENT = (recorded("SELECT id, a FROM t WHERE id = $1", ["id bigint", "a text"], ["bigint"], [["1"]]),)
ONLY_ID = (recorded("SELECT id FROM t WHERE id = $1", ["id bigint"], ["bigint"], [["1"]]),)


@dataclass
class Shop:
    """A repository on a database of its own; what runs is as its supervisor says, and here that is this process."""

    url: str
    folder: Path
    builds: dict[str, str] = field(default_factory=lambda: dict(BUILDS))

    @property
    def state(self) -> Path:
        return self.folder / ".parallelchange" / "local"

    def runs(self, **builds: str) -> None:
        """Say what runs."""
        self.builds.update(builds)
        services = {
            f"shop-{name}": {"version": version, "build": self.builds[version], "ready": 1, "replicas": 1, "port": 1}
            for name, version in (("stable", V1), ("canary", V2))
        }
        write_object(self.state / RUNTIME, {"services": services})

    def verb(self, *arguments: str | Path, env: dict[str, str] | None = None) -> Ran:
        name, *rest = arguments
        words = [name, *rest] if name == "evidence" else [name, CHANGE, *rest]
        return run(*words, cwd=self.folder, env=env)

    def does(self, *arguments: str | Path) -> Ran:
        """Run a verb that must succeed."""
        ran = self.verb(*arguments)
        assert ran.code == 0, f"{arguments}\n{ran.out}\n{ran.err}"
        return ran

    def gate(self) -> tuple[int, dict[str, Any]]:
        ran = self.verb("gate", "--to", "5%", "--json")
        return ran.code, json.loads(ran.out)

    def passes(self) -> None:
        code, document = self.gate()
        assert (code, document["verdict"]) == (0, "pass"), document["findings"]

    def blocks(self, *says: str) -> list[str]:
        """The gate is shut, and each of these is in a message that begins with `stale`."""
        code, document = self.gate()
        assert (code, document["verdict"]) == (1, "unknown"), document
        told = [item["message"] for item in document["findings"] if item["id"].endswith(".stale")]
        assert told
        assert all(message.startswith("stale: ") for message in told), told
        for part in says:
            assert any(part in message for message in told), f"{part!r} is not in\n" + "\n".join(told)
        return told

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        return run_sql(self.url, *statements)


@contextmanager
def shop_on(url: str, folder: Path, ddl: tuple[str, ...] = DDL) -> Iterator[Shop]:
    """Make a repository with an emitted change and its mesh's files."""
    scene = make_scene(url, folder, ddl=ddl, old=SENT, new=ONLY_ID)
    try:
        for version in (V1, V2):
            (folder / f"{version}.yaml").write_text(f"openapi: 3.1.0\ninfo: {{title: shop, version: {version}}}\n")
        text = (folder / CHANGE).read_text()
        for version in (V1, V2):
            text = text.replace(f"{{name: {version},", f"{{name: {version}, openapi: {version}.yaml,")
        (folder / CHANGE).write_text(text)
        yield from _with_mesh(url, folder)
    finally:
        scene.close()


def _with_mesh(url: str, folder: Path) -> Iterator[Shop]:
    (folder / "parallelchange.toml").write_text(f"database_url = {json.dumps(url)}\nalembic = 'alembic.ini'\n")
    shop = Shop(url, folder)
    shop.state.mkdir(parents=True, exist_ok=True)
    router = LocalRouter(shop.state / TRAFFIC_SPLIT, service="shop", stable="shop-stable", canary="shop-canary")
    write_object(shop.state / MESH, {"resourceVersion": router.create().resource_version})
    handle = os.open(shop.state / SUPERVISOR_LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        shop.runs()
        yield shop
    finally:
        os.close(handle)


@contextmanager
def fresh_database(postgres: Any, name: str) -> Iterator[str]:
    named = sql.SQL("{}").format(sql.Identifier(f"{name}_{os.getpid()}"))
    with psycopg.connect(postgres.get_uri(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(named))
        try:
            yield postgres.get_uri(database=f"{name}_{os.getpid()}")
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(named))


@pytest.fixture(scope="module")
def proven(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A change that may go to its first stage."""
    folder = tmp_path_factory.mktemp("shop") / "repo"
    with fresh_database(postgres, "stale") as url, shop_on(url, folder) as shop:
        for verb in ("verify", "rehearse", "expand", "backfill", "verify"):
            shop.does(verb)
        shop.passes()
        yield shop


@contextmanager
def _byte(path: Path, old: bytes, new: bytes) -> Iterator[None]:
    before = path.read_bytes()
    assert before.count(old) >= 1
    path.write_bytes(before.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_bytes(before)


@contextmanager
def _ddl(shop: Shop, do: str, undo: str) -> Iterator[None]:
    shop.sql(do)
    try:
        yield
    finally:
        shop.sql(undo)


@contextmanager
def _build(shop: Shop, version: str) -> Iterator[None]:
    shop.runs(**{version: OTHER})
    try:
        yield
    finally:
        shop.runs(**BUILDS)


CASES: dict[str, tuple[Callable[[Shop], Any], tuple[str, ...]]] = {
    "a column": (
        lambda shop: _ddl(shop, "ALTER TABLE t ADD COLUMN note text", "ALTER TABLE t DROP COLUMN note"),
        ("the schema: + column public.t 4 note text",),
    ),
    "a byte of a function": (
        lambda shop: _ddl(shop, NEXT.replace("n + 1", "n + 2"), NEXT),
        ("- function public.next_of(n integer)", "+ function public.next_of(n integer)"),
    ),
    "many objects": (
        lambda shop: _ddl(shop, "CREATE TABLE u (a int, b int, c int, d int, e int, f int)", "DROP TABLE u"),
        (" and 3 more",),
    ),
    "a privilege": (
        lambda shop: _ddl(shop, "GRANT SELECT ON t TO PUBLIC", "REVOKE SELECT ON t FROM PUBLIC"),
        ("the schema: + access to relation public.t: ",),
    ),
    "the old version's build": (
        lambda shop: _build(shop, V1),
        ("the image digest of v1 (sha256:aaaaaaaaaaaa… was measured, sha256:cccccccccccc… runs)",),
    ),
    "the new version's build": (
        lambda shop: _build(shop, V2),
        ("the image digest of v2 (sha256:bbbbbbbbbbbb… was measured, sha256:cccccccccccc… runs)",),
    ),
    "a byte of the OpenAPI document": (
        lambda shop: _byte(shop.folder / "v2.yaml", b"3.1.0", b"3.1.1"),
        ("the OpenAPI document of v2 (v2.yaml: ",),
    ),
    "a byte of the corpus": (
        lambda shop: _byte(shop.folder / "v1.json", b"SELECT id, a", b"SELECT id ,a"),
        ("the recorded statements of v1 (v1.json: ",),
    ),
    "a value in the corpus": (
        lambda shop: _byte(shop.folder / "v1.json", b'["1"]', b'["2"]'),
        ("the recorded statements of v1 (v1.json: ",),
    ),
    "white space in the corpus": (
        lambda shop: _byte(shop.folder / "v1.json", b"}\n", b"}\n\n"),
        ("the recorded statements of v1 (v1.json: ",),
    ),
    "the plan": (
        lambda shop: _byte(shop.folder / CHANGE, b"stages: [5%, 100%]", b"stages: [5%, 99%, 100%]"),
        ("the plan (",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_difference_shuts_the_gate_and_its_undoing_opens_it(proven: Shop, case: str) -> None:
    make, says = CASES[case]
    rows = proven.sql("SELECT count(*) FROM parallelchange.evidence WHERE about NOT LIKE '[\"laws\"%'")
    with make(proven):
        told = proven.blocks(*says)
        assert any(" on a copy: " in message for message in told), "neither does the rehearsal count"
        assert any(", expanded: " in message for message in told), "nor what was measured live"
    proven.passes()
    # Nothing was measured anew; the gate holds the laws against the rows of its moment, and keeps that.
    assert proven.sql("SELECT count(*) FROM parallelchange.evidence WHERE about NOT LIKE '[\"laws\"%'") == rows


def test_what_is_too_old_says_so(proven: Shop) -> None:
    time.sleep(1.1)
    with _byte(proven.folder / CHANGE, b"metrics: none\n", b"metrics: none\nevidence: {max_age: 1s}\n"):
        proven.blocks(" s ago, and counts for 1 s")
    proven.passes()


def test_people_read_it_too(proven: Shop) -> None:
    with _build(proven, V1):
        shown = proven.verb("gate", "--to", "5%")
        assert shown.code == 1
        assert "stale: v1, expanded: the image digest of v1" in shown.out
        assert "remedy: run `parallelchange verify a-change`" in shown.err
        listed = proven.does("evidence", "list", CHANGE)
        assert "no, stale: the image digest of v1" in listed.out
        assert "yes" in listed.out
        document = json.loads(proven.does("evidence", "list", CHANGE, "--json").out)
        counting = {(item["key"]["version"], item["key"]["place"]) for item in document["evidence"] if item["counts"]}
        assert counting == {(V2, "live"), (V2, "copy"), ("*", "copy"), ("*", "live")}


# Changed behind our back.


@contextmanager
def _kept(shop: Shop) -> Iterator[None]:
    """Put the ledger's evidence back as it was."""
    rows = shop.sql("SELECT * FROM parallelchange.evidence")
    ((head,),) = shop.sql("SELECT evidence_head FROM parallelchange.change")
    try:
        yield
    finally:
        with psycopg.connect(shop.url) as session, session.cursor() as cursor:
            cursor.execute("DELETE FROM parallelchange.evidence")
            cursor.executemany(
                "INSERT INTO parallelchange.evidence OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s, %s, %s, %s)", rows
            )
            cursor.execute("UPDATE parallelchange.change SET evidence_head = %s", (head,))


def test_a_row_that_somebody_changed_shuts_everything_that_goes_forward(proven: Shop) -> None:
    proven.does("evidence", "check", CHANGE)
    ((row,),) = proven.sql("SELECT id FROM parallelchange.evidence WHERE about LIKE '%copy%' ORDER BY id LIMIT 1")
    with _kept(proven):
        proven.sql(f"UPDATE parallelchange.evidence SET body = replace(body, '\"pass\"', '\"fail\"') WHERE id = {row}")
        for verb in (("gate", "--to", "5%"), ("promote", "--to", "5%"), ("rollout",), ("status",)):
            ran = proven.verb(*verb, "--json")
            assert ran.code == 1, ran.err
            document = json.loads(ran.out)
            assert document["verdict"] == "fail"
            (finding,) = (item for item in document["findings"] if item["id"] == "evidence.tampered")
            assert f"row {row} is not what was written" in finding["message"]
            assert "evidence reset a-change" in finding["remedy"]
        for command in (("verify",), ("evidence", "list", CHANGE), ("evidence", "check", CHANGE),
                        ("evidence", "export", CHANGE)):  # fmt: skip
            ran = proven.verb(*command)
            assert ran.code == 1, command
            assert f"row {row} is not what was written" in ran.err
        assert f"row {row}" in proven.verb("status").out
    proven.passes()


def test_a_reset_starts_anew_with_nothing_proven(proven: Shop) -> None:
    with _kept(proven):
        proven.sql("DELETE FROM parallelchange.evidence WHERE id = (SELECT max(id) FROM parallelchange.evidence)")
        assert proven.verb("evidence", "reset", CHANGE).code == 2
        assert proven.verb("evidence", "reset", CHANGE, "--reason", " ").code == 2
        proven.does("evidence", "reset", CHANGE, "--reason", "a row was lost in a restore")
        code, document = proven.gate()
        assert (code, document["verdict"]) == (1, "unknown")
        assert any("nothing was measured" in item["message"] for item in document["findings"])
        ((reason,),) = proven.sql(
            "SELECT detail->>'reason' FROM parallelchange.journal WHERE act = 'evidence-reset' ORDER BY id DESC LIMIT 1"
        )
        assert reason == "a row was lost in a restore"
    proven.passes()


# Carried.


def test_exported_wiped_and_imported_it_counts_again(proven: Shop) -> None:
    file = proven.folder / "evidence.json"
    exported = proven.does("evidence", "export", CHANGE, "-o", file)
    assert "measured on the live database" in exported.err
    before = {item["at"] for item in json.loads(file.read_text())["evidence"]}
    with _kept(proven):
        proven.does("evidence", "reset", CHANGE, "--reason", "a test")
        proven.does("verify")
        blocked = proven.verb("gate", "--to", "5%")
        assert blocked.code == 1
        assert "on a copy: nothing was measured" in blocked.out
        assert "not signed" in proven.does("evidence", "import", CHANGE, file).out
        proven.passes()
        items = json.loads(proven.does("evidence", "list", CHANGE, "--json").out)["evidence"]
        carried = [item for item in items if item["source"]]
        assert {item["source"] for item in carried} == {"imported"}
        assert {round(item["measured_at"] * 1e6) for item in carried} == before, "as old as it was"
        again = proven.does("evidence", "import", CHANGE, file)
        assert "0 verdicts imported" in again.out
        assert "not newer than what the ledger has" in again.err
        with _build(proven, V2):
            proven.blocks("v2, expanded on a copy: the image digest of v2")


def test_keys_decide_whose_evidence_is_taken(proven: Shop) -> None:
    folder = proven.folder
    for name in ("ci", "other"):
        made = proven.does("evidence", "keygen", f"{name}.key")
        assert f"{name}.key.pub" in made.out
        assert stat.S_IMODE((folder / f"{name}.key").stat().st_mode) == 0o600
        assert (folder / f"{name}.key").read_text().strip() not in made.out + made.err
    assert proven.verb("evidence", "keygen", "ci.key").code == 2, "a key in use is not written over"
    proven.does("evidence", "export", CHANGE, "-o", "plain.json")
    proven.does("evidence", "export", CHANGE, "-o", "signed.json", "--sign", "ci.key")
    required = {"PARALLELCHANGE_EVIDENCE_KEYS": "other.key.pub ci.key.pub"}
    for arguments, env, says in (
        (("plain.json",), required, "is not signed, and evidence_keys asks for it"),
        (("plain.json", "--key", "ci.key.pub"), {}, "is not signed, and --key asks for it"),
        (("signed.json", "--key", "other.key.pub"), {}, "is not signed by a key of --key"),
        (
            ("signed.json",),
            {"PARALLELCHANGE_EVIDENCE_KEYS": "other.key.pub"},
            "is not signed by a key of evidence_keys",
        ),
        (("signed.json", "--key", "other.key.pub"), required, "is not signed by a key of --key"),
        (("signed.json", "--key", "ci.key"), {}, "is no public key"),
        (("signed.json", "--key", "none.pub"), {}, "none.pub: cannot be read"),
    ):
        ran = proven.verb("evidence", "import", CHANGE, *arguments, env=env)
        assert (ran.code, says in ran.err) == (2, True), ran.err
    with _kept(proven):
        proven.does("evidence", "reset", CHANGE, "--reason", "a test")
        ran = proven.verb("evidence", "import", CHANGE, "signed.json", env=required)
        assert ran.code == 0, ran.err
        assert "signed by" in ran.out
        proven.does("verify")
        proven.passes()
        assert "imported, signed by" in proven.does("evidence", "list", CHANGE).out


def test_a_file_that_is_not_as_it_was_written_is_refused(proven: Shop) -> None:
    file = proven.folder / "good.json"
    proven.does("evidence", "export", CHANGE, "-o", file)
    good = file.read_text()
    rows = proven.sql("SELECT count(*) FROM parallelchange.evidence")
    bad = proven.folder / "bad.json"
    for text, says in (
        (good.replace('"verdict":"pass"', '"verdict":"fail"', 1), "was changed"),
        (good.replace('"place"', '"place"').replace(',"copy"]', ',"live"]', 1), "speaks of that one only"),
        (good.replace("a-change", "another"), "was changed"),
        (good[:-20], "is no JSON"),
        ("", "is no JSON"),
        ("[" * 100_000, "nested too deep"),
        (good.replace('"format": 1', '"format": 2'), "is of format '2'"),
    ):
        assert text != good
        bad.write_text(text)
        ran = proven.verb("evidence", "import", CHANGE, bad)
        assert (ran.code, says in ran.err) == (2, True), ran.err
    bad.write_bytes(b"\xff\xfe")
    assert proven.verb("evidence", "import", CHANGE, bad).code == 2
    with _byte(proven.folder / CHANGE, b"stages: [5%, 100%]", b"stages: [5%, 99%, 100%]"):
        ran = proven.verb("evidence", "import", CHANGE, file)
        assert (ran.code, "is of another plan" in ran.err) == (2, True), ran.err
    with _byte(proven.folder / CHANGE, b"metrics: none\n", b"metrics: none\nevidence: {max_age: 1ms}\n"):
        ran = proven.verb("evidence", "import", CHANGE, file)
        assert (ran.code, "was measured" in ran.err, "rehearse again" in ran.err) == (2, True, True), ran.err
        nothing = proven.verb("evidence", "export", CHANGE)
        assert (nothing.code, "no evidence of a-change to carry" in nothing.err) == (1, True), nothing.err
    assert proven.sql("SELECT count(*) FROM parallelchange.evidence") == rows


def test_a_rehearsal_in_ci_counts_at_the_gate_of_a_database_with_the_same_schema(postgres: Any, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    with fresh_database(postgres, "ci") as ci, shop_on(ci, repository) as shop:
        # In CI nothing runs, and no mesh is there to be asked.
        shutil.rmtree(shop.folder / ".parallelchange")
        builds = [word for version in BUILDS for word in ("--build", f"{version}={BUILDS[version]}")]
        ran = shop.does("rehearse", "--no-record", *builds, "--evidence", "evidence.json")
        assert "not signed" in ran.err
        for wrong in (("--build", "v1=x"), ("--no-record", "--build", "v3=x"), ("--no-record", "--build", "v1="),
                      ("--no-record", "--build", "v1=x", "--build", "v1=y"), ("--sign", "ci.key"),
                      ("--no-record", "--evidence", "e.json", "--sign", "none.key")):  # fmt: skip
            refused = shop.verb("rehearse", *wrong)
            assert (refused.code, "rehearsing" in refused.err) == (2, False), refused.err
        assert shop.sql("SELECT to_regnamespace('parallelchange')") == [(None,)], "nothing is left in CI's database"
        for name, extra in (("same", ()), ("differs", ("ALTER TABLE t ADD COLUMN note text",))):
            with fresh_database(postgres, name) as url:
                run_sql(url, *DDL, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
                        "INSERT INTO alembic_version VALUES ('0001')", *extra)  # fmt: skip
                copy = tmp_path / name
                shutil.copytree(repository, copy)
                for live in _with_mesh(url, copy):
                    _goes_on(live, same=not extra)


def _goes_on(live: Shop, *, same: bool) -> None:
    live.does("verify")
    assert "nothing was measured" in live.verb("expand").out
    live.does("evidence", "import", CHANGE, "evidence.json")
    expanded = live.verb("expand")
    if not same:
        assert expanded.code == 1
        assert "on a copy: the schema (" in expanded.out
        return
    assert expanded.code == 0, expanded.err
    live.does("backfill")
    live.does("verify")
    live.passes()
