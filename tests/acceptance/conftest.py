"""The command line as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from parallelchange.local.shop import example_path

CLI = [sys.executable, "-m", "parallelchange"]


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    code: int
    out: str
    err: str


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PARALLELCHANGE_", "SHOP_")) and k != "DATABASE_URL"
    }
    return {**kept, **(extra or {})}


def run(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 240) -> Ran:
    """Run the command line to its end."""
    done = subprocess.run(
        [*CLI, *map(str, arguments)], cwd=cwd, env=clean_env(env), capture_output=True, text=True, timeout=timeout,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


@contextmanager
def background(arguments: Sequence[str | Path], *, cwd: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command line in the background; interrupted at the end, as by Ctrl-C."""
    with log.open("wb") as out:
        process = subprocess.Popen([*CLI, *map(str, arguments)], cwd=cwd, env=clean_env(), stdout=out, stderr=out)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(what: str, seen: object, *, limit: float = 90.0) -> None:
    """Wait until `seen()` is true."""
    assert callable(seen)
    give_up = time.monotonic() + limit
    while not seen():
        if time.monotonic() > give_up:
            pytest.fail(f"not seen in {limit:g} s: {what}")
        time.sleep(0.1)


@pytest.fixture
def example(tmp_path: Path, database: str) -> Path:
    """The example on a database at its base revision, with some rows."""
    folder = tmp_path / "shop"
    shutil.copytree(example_path(), folder, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    settings = f'database_url = {json.dumps(database)}\nalembic = "alembic.ini"\nchanges = "changes"\n'
    (folder / "parallelchange.toml").write_text(settings)
    for arguments in (["-m", "alembic", "upgrade", "0001_shop"], ["-m", "shop.seed", "--rows", "400"]):
        subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True,
                       env={"DATABASE_URL": database, "PATH": ""})  # fmt: skip
    return folder
