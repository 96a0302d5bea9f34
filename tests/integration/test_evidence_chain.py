"""The chain of evidence rows on a real database: what somebody does to it shows, and writers never fork it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from helpers.changes import session
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from parallelchange.adapters.postgres.fingerprint import digest_of, fingerprint, schema_lines
from parallelchange.adapters.postgres.ledger import PostgresLedger, ensure_ledger, migrations_path
from parallelchange.errors import Tampered
from parallelchange.evidence import EvidenceFile, about, body, genesis, link
from parallelchange.model import Evidence, EvidenceKey, Finding, GateResult, Place, Severity, State, Verdict

CHANGE = "a-change"
FIVE = ("prepare", "shape", "probe", "execute", "rehearsal")


@pytest.fixture
def ledger(database: str) -> Iterator[PostgresLedger]:
    with closing(PostgresLedger(database, CHANGE)) as ledger:
        ledger.open()
        yield ledger


def proven(
    gate: str = "prepare",
    verdict: Verdict = Verdict.PASS,
    *,
    at: float | None = None,
    place: Place = Place.LIVE,
    **parts: str,
) -> Evidence:
    key = EvidenceKey(CHANGE, "v1", gate, "b", parts.pop("fingerprint", "f"), "s", "p", place=place, **parts)
    finding = Finding("x.y", Severity.INFO, 'says "100%" é\n\x00 and {"at":1', "a.py:1", "do this")
    result = GateResult(gate, verdict, (finding,), "v1", {"rows": 3, "share": 0.1, "of": [1, None], "tiny": 1e-17})
    return Evidence(key, result, time.time() if at is None else at, "run-1", State.EXPANDED)


def rows(ledger: PostgresLedger) -> list[tuple[Any, ...]]:
    return ledger.connection.execute(
        "SELECT id, about, at, body, previous, hash FROM parallelchange.evidence WHERE change = %s ORDER BY id",
        (CHANGE,),
    ).fetchall()


def test_each_row_follows_the_one_before_and_the_change_names_the_last(ledger: PostgresLedger) -> None:
    written = [proven(gate) for gate in FIVE]
    ledger.add_evidence(written[:3])
    ledger.add_evidence(written[3:])
    before = genesis(CHANGE)
    for (_, look_up, _, text, previous, hash_), item in zip(rows(ledger), written, strict=True):
        assert (previous, text, look_up) == (before, body(item), about(item))
        before = link(previous, text)
        assert hash_ == before
    assert ledger.connection.execute("SELECT evidence_head FROM parallelchange.change").fetchone() == (before,)
    found = {item.key.gate: item for item in ledger.evidence()}
    for item in written:
        assert replace(found[item.key.gate], measured_at=item.measured_at) == item
        assert abs(found[item.key.gate].measured_at - item.measured_at) <= 1e-6


EVIDENCE, LAST = "parallelchange.evidence", "parallelchange.change SET evidence_head ="
LIES = """replace(body, '"fail"', '"pass"')"""
FORGED = f"body = {LIES}, hash = encode(sha256(convert_to(previous || {LIES}, 'UTF8')), 'hex')"
COLUMNS = "change, about, at, body, previous, hash"
GONE = f"WITH gone AS (DELETE FROM {EVIDENCE} WHERE id = {{2}} RETURNING id + 900, {COLUMNS})"
ANOTHER = "INSERT INTO parallelchange.change (name) VALUES ('other')"
TAMPERINGS = {
    "a verdict": (f"UPDATE {EVIDENCE} SET body = {LIES} WHERE id = {{2}}", "{2}"),
    "a byte": (f"UPDATE {EVIDENCE} SET body = body || ' ' WHERE id = {{0}}", "{0}"),
    "letters": (f"UPDATE {EVIDENCE} SET body = body || 'ü' WHERE id = {{0}}", "{0}"),
    "no text": (f"UPDATE {EVIDENCE} SET body = '' WHERE id = {{2}}", "{2}"),
    "a hash": (f"UPDATE {EVIDENCE} SET hash = md5(hash) WHERE id = {{4}}", "{4}"),
    "what it follows": (f"UPDATE {EVIDENCE} SET previous = md5(hash) WHERE id = {{1}}", "{1}"),
    "a text and its hash": (f"UPDATE {EVIDENCE} SET {FORGED} WHERE id = {{2}}", "{3}"),
    "the last text and its hash": (f"UPDATE {EVIDENCE} SET {FORGED} WHERE id = {{4}}", "{4}"),
    "where it is filed": (f"UPDATE {EVIDENCE} SET about = replace(about, 'expanded', 'base') WHERE id = {{3}}", "{3}"),
    "when": (f"UPDATE {EVIDENCE} SET at = at + 1 WHERE id = {{0}}", "{0}"),
    "the first row gone": (f"DELETE FROM {EVIDENCE} WHERE id = {{0}}", "{1}"),
    "a row gone": (f"DELETE FROM {EVIDENCE} WHERE id = {{2}}", "{3}"),
    "the last row gone": (f"DELETE FROM {EVIDENCE} WHERE id = {{4}}", "{3}"),
    "all rows gone": (f"DELETE FROM {EVIDENCE}", "no row is there"),
    "a row twice": (f"INSERT INTO {EVIDENCE} ({COLUMNS}) SELECT {COLUMNS} FROM {EVIDENCE} WHERE id = {{2}}", "{5}"),
    "another order": (f"{GONE} INSERT INTO {EVIDENCE} OVERRIDING SYSTEM VALUE SELECT * FROM gone", "{3}"),
    "the head": (f"UPDATE {LAST} md5(evidence_head)", "{4}"),
    "no head": (f"UPDATE {LAST} NULL", "{4}"),
    "a row given away": (f"{ANOTHER}; UPDATE {EVIDENCE} SET change = 'other' WHERE id = {{1}}", "{2}"),
}


@pytest.mark.parametrize("case", TAMPERINGS)
def test_what_somebody_did_to_it_shows_and_names_the_row(ledger: PostgresLedger, case: str) -> None:
    ledger.add_evidence([proven(gate, Verdict.FAIL) for gate in FIVE])
    ids = [row[0] for row in rows(ledger)]
    do, says = (text.format(*ids, ids[-1] + 1) for text in TAMPERINGS[case])
    for statement in do.split(";"):
        ledger.connection.execute(statement)
    named = f"row {says} " if says.isdigit() else says
    with pytest.raises(Tampered) as caught:
        ledger.evidence()
    assert named in caught.value.message + " ", caught.value.message
    assert caught.value.exit_code == 1
    assert "evidence reset a-change" in (caught.value.hint or "")
    kept = rows(ledger)
    with pytest.raises(Tampered):
        ledger.add_evidence([proven()])
    assert rows(ledger) == kept, "nothing is built on it"
    with ledger.fenced():
        assert ledger.reset_evidence("found by a test") == len(kept)
    assert list(ledger.evidence()) == []
    ledger.add_evidence([proven()])
    assert [item.key.gate for item in ledger.evidence()] == ["prepare"]


def test_a_row_with_a_right_hash_that_says_nonsense_is_no_crash(ledger: PostgresLedger) -> None:
    for text in ('{"about":[],"at":1,', "null", '{"about":[],"at":1,"verdict":"pass"}', body(proven("laws", at=1.0))):
        with ledger.connection.transaction(force_rollback=True):
            hash_ = link(genesis(CHANGE), text)
            where = about(proven("laws")) if "laws" in text else "[]"
            ledger.connection.execute(
                "INSERT INTO parallelchange.evidence (change, about, at, body, previous, hash)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                (CHANGE, where, 1_000_000 if "laws" in text else 1, text, genesis(CHANGE), hash_),
            )
            ledger.connection.execute("UPDATE parallelchange.change SET evidence_head = %s", (hash_,))
            if "laws" in text:
                assert [item.key.gate for item in ledger.evidence()] == ["laws"]
                continue
            with pytest.raises(Tampered, match="row"):
                ledger.evidence()


def test_a_row_copied_from_the_chain_of_another_change_is_none_of_ours(ledger: PostgresLedger) -> None:
    foreign = body(replace(proven(), key=replace(proven().key, change="another")))
    hash_ = link(genesis(CHANGE), foreign)
    at = int(foreign.partition('"at":')[2].partition(",")[0])
    ledger.connection.execute(
        "INSERT INTO parallelchange.evidence (change, about, at, body, previous, hash) VALUES (%s, %s, %s, %s, %s, %s)",
        (CHANGE, about(proven()), at, foreign, genesis(CHANGE), hash_),
    )
    ledger.connection.execute("UPDATE parallelchange.change SET evidence_head = %s", (hash_,))
    with pytest.raises(Tampered, match="of another change"):
        ledger.evidence()


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_writers_at_once_make_one_chain(ledger: PostgresLedger, level: str) -> None:
    ledger.connection.execute(
        f"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''{level}''',"
        " current_database()); END $$"
    )
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with closing(PostgresLedger(ledger.url, CHANGE)) as mine:
                for gate in FIVE:
                    mine.add_evidence([proven(gate), proven(gate, place=Place.COPY)])
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert len(rows(ledger)) == 4 * 2 * len(FIVE)
    assert len(ledger.evidence()) == 2 * len(FIVE)


def test_a_writer_that_dies_half_way_leaves_the_chain_as_it_was(
    ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.add_evidence([proven()])
    kept = rows(ledger)

    def dies(connection: Any, _fingerprint: Any) -> None:
        with session(ledger.url, "test") as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        connection.execute("SELECT 1")

    monkeypatch.setattr("parallelchange.adapters.postgres.ledger.keep_schema", dies)
    with closing(PostgresLedger(ledger.url, CHANGE)) as dying, pytest.raises(psycopg.OperationalError):
        dying.add_evidence([proven("shape"), proven("probe")])
    assert rows(ledger) == kept
    assert [item.key.gate for item in ledger.evidence()] == ["prepare"]


def test_it_holds_in_a_database_of_another_encoding(ledger: PostgresLedger) -> None:
    name = f"{ledger.connection.info.dbname}_latin1"
    ledger.connection.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        url = psycopg.conninfo.make_conninfo(ledger.url, dbname=name)
        with closing(PostgresLedger(url, CHANGE)) as other:
            other.open()
            other.add_evidence([proven()])
            assert other.evidence()[0].result.findings == proven().result.findings
            other.connection.execute("UPDATE parallelchange.evidence SET body = body || chr(200)")
            with pytest.raises(Tampered, match="is not what was written"):
                other.evidence()
    finally:
        ledger.connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


# What counts.


def test_what_was_measured_last_counts_whatever_was_written_last(ledger: PostgresLedger) -> None:
    now = time.time()
    ledger.add_evidence([proven(verdict=Verdict.FAIL, at=now)])
    ledger.add_evidence([proven(at=now - 10)])
    assert [item.result.verdict for item in ledger.evidence()] == [Verdict.FAIL]


def carried(*items: Evidence) -> EvidenceFile:
    return EvidenceFile(CHANGE, "p", "a test", time.time(), items)


def test_a_pass_from_elsewhere_outdoes_no_newer_refusal_of_ours(ledger: PostgresLedger) -> None:
    now = ledger.now()
    refused = proven("execute", Verdict.FAIL, at=now - 60, place=Place.COPY)
    ledger.add_evidence([refused])
    for at, counts in ((now - 61, False), (now - 60, False), (now - 56, False), (now - 50, True)):
        kept = ledger.import_evidence(carried(proven("execute", at=at, place=Place.COPY)), "key-1")
        assert bool(kept) is counts, at
    (found,) = ledger.evidence()
    assert (found.result.verdict, found.source) == (Verdict.PASS, "imported, signed by key-1")
    assert found.measured_at == pytest.approx(now - 50, abs=1e-5)
    # A clock that is a little ahead does not make it newer than what is measured here from now on.
    ledger.import_evidence(carried(proven("execute", at=ledger.now() + 4, place=Place.COPY)))
    ledger.add_evidence([replace(refused, measured_at=ledger.now())])
    assert [item.result.verdict for item in ledger.evidence()] == [Verdict.FAIL]


def test_a_refusal_from_elsewhere_counts(ledger: PostgresLedger) -> None:
    now = ledger.now()
    ledger.add_evidence([proven("execute", at=now - 60, place=Place.COPY)])
    ledger.import_evidence(carried(proven("execute", Verdict.FAIL, at=now - 59, place=Place.COPY)))
    assert [item.result.verdict for item in ledger.evidence()] == [Verdict.FAIL]
    assert [item["detail"]["kept"] for item in ledger.journal()] == [1]


# Schemas.


def test_the_lines_are_those_of_the_fingerprint(database: str) -> None:
    with session(database, "test") as connection:
        connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, a text DEFAULT 'ä')")
        connection.execute("CREATE VIEW v AS SELECT id,\n a FROM t")
        assert digest_of(schema_lines(connection)) == fingerprint(connection)


def test_what_differs_is_told_by_object(ledger: PostgresLedger) -> None:
    connection = ledger.connection
    connection.execute("CREATE TABLE t (id bigint PRIMARY KEY, a text)")
    connection.execute("CREATE INDEX t_a ON t (a)")
    before = fingerprint(connection)
    assert ledger.schema_changes(before) is None, "nothing was remembered"
    ledger.add_evidence([proven(fingerprint=before)])
    assert ledger.schema_changes(before) == ()
    connection.execute("ALTER TABLE t ADD COLUMN note text; DROP INDEX t_a")
    added, dropped = ledger.schema_changes(before) or ()
    assert added.startswith("+ column public.t 3 note text")
    assert dropped.startswith("- index CREATE INDEX t_a ON public.t")
    connection.execute("UPDATE parallelchange.schema SET lines = '[\"column public.t 9 lie\"]'")
    assert ledger.schema_changes(before) is None, "what somebody changed tells nothing"
    connection.execute("UPDATE parallelchange.schema SET lines = 'no JSON'")
    assert ledger.schema_changes(before) is None


# Ledgers of before.


def test_a_ledger_of_before_is_read_as_one_without_evidence_and_upgraded_by_writers(database: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_path()))
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database), poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE SCHEMA parallelchange")
        connection.commit()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("INSERT INTO parallelchange.change (name, weight) VALUES ('a-change', 50)")
        connection.exec_driver_sql(
            "INSERT INTO parallelchange.evidence (change, version, gate, build, fingerprint, statements, plan, spec,"
            " incarnation, state, verdict, findings, measured, run) VALUES ('a-change', 'v1', 'prepare', 'b', 'f', 's',"
            " 'p', '', '', 'expanded', 'pass', '[]', '{}', 'r')"
        )
        connection.commit()
        with closing(PostgresLedger(database, CHANGE)) as ledger:
            assert (list(ledger.evidence()), ledger.schema_changes("f")) == ([], None)
            ensure_ledger(ledger.connection, database)
            assert list(ledger.evidence()) == [], "it tells not where it was measured"
            ledger.add_evidence([proven()])
            assert len(ledger.evidence()) == 1
            record = ledger.read()
            assert record is not None
            assert record.weight == 50
        command.downgrade(config, "0001")
        command.upgrade(config, "head")
        connection.commit()
    engine.dispose()
