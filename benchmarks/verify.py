"""`parallelchange verify` of one version with 2,000 statements, beside 2,000 bare PREPAREs in one session.

The whole command as a user types it, start of the interpreter included; what counts is the bound, and the ratio tells
what the machine adds. Then once more under watch: another session looks at pg_locks all the time.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from parallelchange.adapters.planning import load_plan, write_lock
from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.shapes import Describer
from parallelchange.adapters.postgres.statements import ask_all
from parallelchange.corpus import Corpus, Recorded, Step, Unit, read_corpus, write_corpus
from parallelchange.emit.alembic import emit
from parallelchange.local.postgres import scratch_postgres
from parallelchange.model import Lock

TABLES, STATEMENTS, BOUND, RUNS = 60, 2_000, 2.0, 5
COLUMNS = ("name text NOT NULL", "state text DEFAULT 'new'", "amount numeric(12,2)", "placed timestamptz", "note text",
           "tags text[]", "extra jsonb", "active boolean NOT NULL DEFAULT true")  # fmt: skip
ENV = """
from alembic import context
from sqlalchemy import create_engine
raise SystemExit("nobody runs this")
"""
CHANGE = """
change: bench
versions:
  old: {name: v1, application_name: v1, statements: v1.json, probe: none}
  new: {name: v2, application_name: v2, statements: v2.json, probe: none}
database:
- rename_column: {table: t0, column: name, to: title}
traffic: {service: shop, stages: [50%, 100%], soak: 0s, drain: 0s, drain_timeout: 0s}
metrics: none
"""
# The ledger's own tables are verify's to write.
WATCHED = """
SELECT l.mode, c.relname FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.application_name = 'parallelchange' AND a.datname = current_database() AND n.nspname <> 'parallelchange'
  AND c.oid NOT IN (SELECT unnest(ARRAY[t.reltoastrelid, i.indexrelid]) FROM pg_class t
    JOIN pg_index i ON i.indrelid = t.reltoastrelid WHERE t.relnamespace = 'parallelchange'::regnamespace)
"""
COUNTS = "SELECT " + ", ".join(
    f"(SELECT count(*) FROM {name})"
    for name in ("pg_class", "pg_attribute", "pg_type", "pg_proc", "pg_depend", "pg_constraint", "pg_prepared_xacts")
)
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'parallelchange'"
LATEST = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


def schema(url: str) -> None:
    """Sixty tables that refer to one another, some of them large, with indexes, views and a trigger."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
        for number in range(TABLES):
            parent = f", parent bigint REFERENCES t{number // 2}" if number else ", parent bigint"
            session.execute(f"CREATE TABLE t{number} (id bigint PRIMARY KEY, {', '.join(COLUMNS)}{parent})")
            session.execute(f"CREATE INDEX ON t{number} (state, placed); CREATE INDEX ON t{number} (parent)")
            rows = 20_000 if number % 10 == 0 else 100
            session.execute(f"INSERT INTO t{number} (id, name, amount, placed)"
                            f" SELECT g, 'n' || g, g, now() FROM generate_series(1, {rows}) g")  # fmt: skip
            if number % 6 == 0:
                session.execute(f"CREATE VIEW w{number} AS SELECT id, state, amount FROM t{number} WHERE active")
                session.execute(f"CREATE TRIGGER touch BEFORE UPDATE ON t{number}"
                                " FOR EACH ROW EXECUTE FUNCTION touch()")  # fmt: skip
        session.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        session.execute("INSERT INTO alembic_version VALUES ('0001'); ANALYZE")


def statements(number: int) -> Iterator[str]:
    """That many distinct statements, such as apps send: four in five of them read."""
    chance, seen = random.Random(4), set[str]()
    while len(seen) < number:
        a, b, c = chance.sample(range(TABLES), 3)
        view, columns = 6 * chance.randrange(TABLES // 6), ["name", "state", "amount", "placed", "note", "active"]
        x, y, z = chance.sample(columns, 3)
        text = chance.choice((
            f"SELECT id, {x}, {y} FROM t{a} WHERE id = $1",
            f"SELECT * FROM t{a} WHERE state = $1 AND placed > $2 ORDER BY placed DESC LIMIT 20",
            (f"SELECT a.id, a.{x}, b.{y}, c.{z} FROM t{a} a JOIN t{b} b ON b.parent = a.id LEFT JOIN t{c} c"
            " ON c.parent = b.id WHERE a.state = $1 AND b.amount > $2"),
            (f"WITH latest AS (SELECT parent, max(placed) AS at FROM t{a} GROUP BY parent) SELECT b.id, b.{x}, l.at"
            f" FROM t{b} b JOIN latest l ON l.parent = b.id WHERE b.id = ANY ($1)"),
            (f"SELECT state, count(*), sum(amount) FROM t{a} WHERE {x} IS NOT NULL AND placed BETWEEN $1 AND $2"
            " GROUP BY state HAVING count(*) > 1"),
            f"SELECT id, {x}, row_number() OVER (PARTITION BY state ORDER BY placed) AS n FROM t{a} WHERE parent = $1",
            f"SELECT a.{x}, a.{y} FROM t{a} a WHERE EXISTS (SELECT FROM t{b} b WHERE b.parent = a.id AND b.state = $1)",
            f"SELECT id, {x} FROM t{a} WHERE state = $1 UNION ALL SELECT id, {x} FROM t{b} WHERE state = $1",
            f"SELECT v.id, v.amount, a.{x} FROM w{view} v JOIN t{a} a ON a.parent = v.id WHERE v.state = $1",
            f"SELECT id, extra ->> 'k' AS k, tags[1] AS tag FROM t{a} WHERE extra @> $1 AND {x} IS NOT NULL",
            f"INSERT INTO t{a} (id, name, state, amount) VALUES ($1, $2, $3, $4) RETURNING id, {x}",
            f"INSERT INTO t{a} (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET {x} = excluded.{x}",
            f"UPDATE t{a} SET {x} = DEFAULT, tags = $1 WHERE id = $2 RETURNING {y}",
            f"DELETE FROM t{a} WHERE parent IN (SELECT id FROM t{b} WHERE state = $1) AND {x} IS NULL",
        ))  # fmt: skip
        if text not in seen:
            seen.add(text)
            yield text


def corpus(url: str, version: str) -> Corpus:
    """As recording leaves it: each with its types and its columns, and sent once."""
    with connect(url) as session:
        describer = Describer(session)
        found = []
        for text in statements(STATEMENTS):
            columns, types = describer.describe(text, ())
            found.append(Recorded(text, types, columns, True, "bench"))
    units = tuple(Unit(1, (Step(item.id, (None,) * len(item.types)),)) for item in found)
    return Corpus(version, tuple(found), units)


def repository(folder: Path, url: str) -> Path:
    """A repository with the change in it, emitted; gives the change file."""
    versions = folder / "migrations" / "versions"
    versions.mkdir(parents=True)
    (folder / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/migrations\npath_separator = os\n")
    (folder / "migrations" / "env.py").write_text(ENV)
    (folder / "migrations" / "script.py.mako").write_text("")
    (versions / "0001.py").write_text("revision = '0001'\ndown_revision = None\n\n\ndef upgrade() -> None: ...\n")
    for version in ("v1", "v2"):
        write_corpus(folder / f"{version}.json", corpus(url, version))
    change = folder / "bench.yaml"
    change.write_text(textwrap.dedent(CHANGE))
    plan = load_plan(change, url)
    emit(plan, folder / "alembic.ini")
    write_lock(plan)
    return change


def timed(work: Callable[[], object]) -> float:
    """Seconds it takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def cpu(work: Callable[[], object]) -> float:
    """User and system seconds of the processes it starts; a busy machine stretches these least."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def verify(change: Path, url: str) -> dict[str, str]:
    """The command; gives each gate's verdict."""
    done = subprocess.run(
        [sys.executable, "-m", "parallelchange", "verify", str(change), "--json"], check=False, capture_output=True,
        text=True, cwd=change.parent, env={**os.environ, "PARALLELCHANGE_DATABASE_URL": url},
    )  # fmt: skip
    if not done.stdout:
        raise SystemExit(done.stderr)
    return {f"{g['gate']} {g['version'] or ''}".strip(): g["verdict"] for g in json.loads(done.stdout)["gates"]}


def bare(url: str, texts: list[bytes]) -> None:
    """The yardstick: each statement prepared, one after the other."""
    with psycopg.connect(url, autocommit=True) as session:
        for number, text in enumerate(texts):
            session.pgconn.prepare(f"s{number}".encode(), text)


class Watch:
    """Another session that looks at pg_locks as often as it can."""

    def __init__(self, url: str) -> None:
        self.url, self.modes, self.stronger, self.looks = url, dict[str, int](), set[str](), 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as session:
            while not self.stop.is_set():
                for mode, name in session.execute(WATCHED):
                    self.modes[mode] = self.modes.get(mode, 0) + 1
                    if mode != Lock.ACCESS_SHARE.mode:
                        self.stronger.add(f"{mode} on {name}")
                self.looks += 1

    @property
    def strongest(self) -> str:
        """The strongest lock seen on anything but the ledger."""
        order = {lock.mode: lock for lock in Lock}
        return max((order[mode] for mode in self.modes), default=Lock.NONE).title


def left_behind(change: Path, url: str) -> dict[str, object]:
    """What one more run, watched, takes and leaves."""
    with psycopg.connect(url, autocommit=True) as session:
        before = session.execute(COUNTS).fetchone()
        watch = Watch(url)
        watch.thread.start()
        verify(change, url)
        watch.stop.set()
        watch.thread.join()
        same = session.execute(COUNTS).fetchone() == before
        open_ = session.execute(SESSIONS).fetchone()
        known = read_corpus(change.parent / "v1.json", "v1")
        latest = session.execute(LATEST).fetchone()
        ask_all(url, known, role=None, on_copy=False)
        used = session.execute(LATEST).fetchone()
    assert latest is not None
    assert used is not None
    assert open_ is not None
    return {
        "looks": watch.looks, "strongest_lock": watch.strongest, "locks_seen": watch.modes,
        "stronger": sorted(watch.stronger), "catalogs_unchanged": same,
        "sessions_left": open_[0], "transaction_ids_used_by_asking": used[0] - latest[0],
    }  # fmt: skip


def main() -> None:
    """Print seconds, the ratio, and what was seen from outside."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=RUNS)
    runs = parser.parse_args().runs
    with scratch_postgres() as server, tempfile.TemporaryDirectory() as folder:
        url = server.create_database("bench")
        schema(url)
        change = repository(Path(folder), url)
        texts = [item.sql.encode() for item in read_corpus(change.parent / "v1.json", "v1").statements]
        verdicts = verify(change, url)  # the first run makes the ledger
        pairs = [(timed(lambda: verify(change, url)), timed(lambda: bare(url, texts))) for _ in range(runs)]
        spent = cpu(lambda: verify(change, url))
        seen = left_behind(change, url)
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(json.dumps({
        "statements": len(texts), "tables": TABLES, "verdicts": verdicts, "verify_s": round(ours, 2),
        "slowest_s": round(max(pair[0] for pair in pairs), 2), "bound_s": BOUND, "bare_prepares_s": round(theirs, 3),
        "ratio": round(ours / theirs, 1), "cpu_of_the_command_s": round(spent, 2), **seen,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
