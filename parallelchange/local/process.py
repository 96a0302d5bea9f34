"""Child processes of the local runtime, their ports, and a look at what they answer."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from parallelchange.errors import Unavailable

__all__ = ["LOOPBACK", "Child", "ReservedPort", "http_get", "last_lines", "tied_to_us"]

LOOPBACK = "127.0.0.1"
GRACE = 10.0
"""Seconds a child has to end by itself when it is asked to."""

_LIFELINE = Path(__file__).with_name("_lifeline.py")


class ReservedPort:
    """A free loopback port that nobody is given by chance as long as this is held.

    The socket is bound and never listens. A server that sets SO_REUSEADDR, as nearly all do, can listen on
    the port; the kernel does not choose it for an outgoing connection or for another server.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((LOOPBACK, 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give the port back."""
        self._socket.close()


def tied_to_us() -> list[str]:
    """What a command begins with so that it ends, whatever happens, when the thread that started it does."""
    return [sys.executable, "-I", "-S", str(_LIFELINE), str(os.getpid())]


class Child:
    """A program that does not outlive us, even when we are killed.

    On Linux the kernel kills it when the *thread* that started it ends, so start children from a thread that
    lives as long as they should. Programs that it starts itself are its own care.

    Args:
        command: The program and its arguments.
        log: File its output is appended to.
        env: Its whole environment; None for ours.
        cwd: Its working directory; None for ours.

    Raises:
        Unavailable: It cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        self._deadline: float | None = None
        with log.open("ab") as output:
            try:
                self._process = subprocess.Popen(
                    [*tied_to_us(), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=env,
                    cwd=cwd,
                )
            except OSError as error:
                raise Unavailable(f"{command[0]} cannot be started: {error}") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    @property
    def ending(self) -> bool:
        """Whether it was asked to end."""
        return self._deadline is not None

    def end(self) -> None:
        """Ask it to end; `reap` then sees to it."""
        if self._deadline is None and self.exit_code is None:
            self._deadline = time.monotonic() + GRACE
            self._process.terminate()

    def reap(self) -> bool:
        """Whether it has ended; one that was asked to and did not in time is killed."""
        if self.exit_code is not None:
            return True
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._process.kill()
            self._process.wait()
            return True
        return False

    def stop(self) -> None:
        """Ask it to end and wait until it has."""
        self.end()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def http_get(port: int, path: str, *, timeout: float) -> tuple[int, str] | None:
    """Ask a server on this machine, past any proxy; its status and body, or None when it does not answer."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a log, for a message; its absence in words."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    except OSError:
        return f"(there is no log at {log})"
    return "\n".join(lines) or f"({log} is empty)"
