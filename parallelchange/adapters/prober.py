"""Asking a version for its own proof: an HTTP check or a command."""

from __future__ import annotations

import os
import shlex
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from parallelchange.change import Version
from parallelchange.gates.probe import ProbeFact

__all__ = ["RealProber"]

_OK = 200
_TOLD = 300


class RealProber:
    """Probes versions.

    Args:
        url: The shared database, given to commands as DATABASE_URL.
        folder: The change file's folder, in which commands run.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def probe(self, version: Version, address: str | None) -> ProbeFact:
        """Run the version's probe; what cannot be asked is told as such."""
        assert version.probe is not None
        if version.probe.command is not None:
            ok, detail = self._command(version, version.probe.command, address)
        elif address is None and "{host}" in (version.probe.url or ""):
            ok, detail = None, "no copy of it is ready"
        else:
            assert version.probe.url is not None
            ok, detail = _get(version.probe.url.replace("{host}", address or ""), version.probe.timeout)
        return ProbeFact(version.name, declared=True, ok=ok, detail=detail)

    def _command(self, version: Version, command: str, address: str | None) -> tuple[bool | None, str]:
        timeout = version.probe.timeout if version.probe else 0.0
        env = {**os.environ, "DATABASE_URL": self.url, "PARALLELCHANGE_HOST": address or ""}
        if version.application_name:
            env["PGAPPNAME"] = version.application_name  # what it sends is the version's, for triggers and gates too
        try:
            done = subprocess.run(
                shlex.split(command),
                cwd=self.folder,
                env=env,
                timeout=timeout,
                check=False,
                capture_output=True,
                text=True,
            )
        except (OSError, ValueError) as error:
            return None, f"`{command}` cannot be run: {error}"
        except subprocess.TimeoutExpired:
            return False, f"`{command}` did not end in {timeout:g} s"
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or [""]
        return done.returncode == 0, f"`{command}` exited {done.returncode}: {last[0][:_TOLD]}"


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect is no answer: the page it leads to, a login say, speaks for somebody else."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


# A proxy would answer in the place of the copy that is asked.
_OPENER = urllib.request.build_opener(_Stay, urllib.request.ProxyHandler({}))


def _get(url: str, timeout: float) -> tuple[bool | None, str]:
    if not url.startswith(("http://", "https://")):
        return None, f"{url} is no http address"
    try:
        with _OPENER.open(url, timeout=timeout) as answer:
            return answer.status == _OK, f"GET {url} answered {answer.status}"
    except urllib.error.HTTPError as error:
        with error:
            body = error.read(_TOLD).decode(errors="replace")
        return False, f"GET {url} answered {error.code}: {body}"
    except (OSError, ValueError) as error:
        return None, f"GET {url}: {error}"
