"""`record` on apps that are not ours, one of them not in Python, at real work."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.real_apps import install_npm, install_python

from acceptance.conftest import run
from parallelchange.corpus import Corpus, read_corpus
from parallelchange.sqltext import Kind

APPS = Path(__file__).parents[1] / "apps"


def record(folder: Path, version: str, *command: str, env: Mapping[str, str]) -> tuple[Corpus, dict[str, Any]]:
    ran = run("record", version, "--output", "app.json", "--json", "--", *command, cwd=folder, env=env, timeout=120)
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    print(told)  # noqa: T201 - the count is what this is to show
    return read_corpus(folder / "app.json", version), told


def beginnings(corpus: Corpus) -> str:
    return "\n".join(statement.sql for statement in corpus.statements)


def check(corpus: Corpus, told: Mapping[str, Any], wanted: tuple[str, ...], *, at_least: int) -> None:
    assert told["statements"] == len(corpus.statements) >= at_least
    assert [part for part in wanted if part not in beginnings(corpus)] == []
    # Whatever reads or writes was described, and each of them was seen sent.
    for statement in corpus.statements:
        assert statement.id in corpus.examples, statement.sql
        if statement.kind is not Kind.UTILITY:
            assert not statement.unasked, (statement.sql, statement.unasked)
    assert any("RETURNING" in s.sql or s.columns for s in corpus.statements)


def test_a_job_queue_in_javascript(tmp_path: Path) -> None:
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm and node are not installed")
    modules = install_npm("pg-boss@10.4.2")
    corpus, told = record(
        tmp_path, "pg-boss-10", "node", str(APPS / "pg_boss.mjs"), env={"APP_MODULES": str(modules / "node_modules")}
    )
    wanted = (
        "CREATE TABLE pgboss.job (",  # DDL at start
        "CREATE FUNCTION pgboss.create_queue(queue_name text, options json)",
        "SELECT pg_advisory_xact_lock(",
        "SET LOCAL lock_timeout = $1",
        "INSERT INTO pgboss.job (",  # send
        "FOR UPDATE SKIP LOCKED",  # fetch
        "state = 'completed', output = $3::jsonb",  # complete
        "WITH deleted_jobs AS ( DELETE FROM pgboss.job WHERE name = $1 AND id IN (SELECT UNNEST($2::uuid[]))",  # fail
        "ON CONFLICT (name) DO UPDATE SET cron",  # schedule
        "SELECT pgboss.create_queue($1, $2)",
    )
    check(corpus, told, wanted, at_least=40)
    # It begins with one string of all its DDL between BEGIN and COMMIT.
    started = next(unit for unit in corpus.units if len(unit.steps) > 10)
    assert started.end == "commit"
    assert corpus.by_id[started.steps[0].statement].sql.startswith("SET LOCAL")


def test_a_job_queue_in_python(tmp_path: Path) -> None:
    packages = install_python("procrastinate==3.10.0")
    path = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH", "")]))
    script = str(APPS / "procrastinate_app.py")
    corpus, told = record(tmp_path, "procrastinate-3", "env", f"PYTHONPATH={path}", sys.executable, script, env={})
    wanted = (
        "CREATE TABLE procrastinate_jobs (",
        "CREATE TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1",
        "CREATE TYPE procrastinate_job_status AS ENUM",
        "DO $$",
        'LISTEN "procrastinate_queue_v1#sums"',
        "SELECT unnest( procrastinate_defer_jobs_v1( $1::procrastinate_job_to_defer_v1[] ) ) AS id",  # defer
        "FROM procrastinate_fetch_job_v2(",  # fetch
        "SELECT procrastinate_finish_job_v1($1, $2, $3)",  # done
        "SELECT procrastinate_retry_job_v2(",  # failed, once more
        "SELECT procrastinate_cancel_job_v1($1, $2, $3) AS id",
        "DELETE FROM procrastinate_jobs WHERE id IN (",
    )
    check(corpus, told, wanted, at_least=50)
    assert told["sessions"] >= 3
    failed = next(s for s in corpus.statements if "procrastinate_finish_job_v1($1" in s.sql and s.types)
    ends = {step.values[1] for step in corpus.steps() if step.statement == failed.id}
    assert {"succeeded", "failed"} <= ends
