"""The small files through which processes on one machine speak of one mesh.

Each is one JSON object, replaced by rename, so a reader sees the old or the new one and never half of one.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from parallelchange.errors import Busy, Unavailable

__all__ = [
    "MESH",
    "METRICS",
    "RUNTIME",
    "SCALE",
    "SUPERVISOR_LOCK",
    "TRAFFIC_SPLIT",
    "is_locked",
    "locked",
    "read_object",
    "write_object",
    "write_text",
]

TRAFFIC_SPLIT = "trafficsplit.json"
"""The split, written by routers and read by the mesh."""
MESH = "mesh.json"
"""Which version of the split is in force, written by the mesh."""
METRICS = "metrics.jsonl"
"""What the mesh counted, one reading a line."""
RUNTIME = "runtime.json"
"""What runs, written by the supervisor."""
SCALE = "scale.json"
"""How many copies are wanted, written by anyone and read by the supervisor."""
SUPERVISOR_LOCK = "supervisor.lock"
"""Held by the supervisor as long as it lives: another process may get its id, but not its lock."""

_RETRY = 0.02


def write_text(path: Path, text: str) -> None:
    """Replace a file by rename, and only once its content is on the disk."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    _sync_directory(path.parent)


def write_object(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file by rename."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None when the file is not there.

    Raises:
        Unavailable: The file cannot be read or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Unavailable(f"{path} holds no JSON: {error}", hint="restore or remove the file") from error
    if not isinstance(value, dict):
        raise Unavailable(f"{path} holds no JSON object", hint="restore or remove the file")
    return value


@contextmanager
def locked(path: Path, *, patience: float = 5.0) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is made when it is not there.

    Raises:
        Busy: Somebody else held it for all of `patience` seconds.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + patience
        while not _try_lock(handle, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise Busy(f"{path} is held by another process", hint="wait until it is done, then try again")
            time.sleep(_RETRY)
        yield
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether a living process holds that lock."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
