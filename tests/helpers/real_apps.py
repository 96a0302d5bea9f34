"""Apps that are not ours, installed once into the user's cache, in exact versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["install_npm", "install_python"]


def install_python(requirement: str) -> Path:
    """Install from PyPI; the folder belongs on PYTHONPATH."""

    def install(folder: Path) -> list[str]:
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                "--target", str(folder), requirement]  # fmt: skip

    return _once(requirement.replace("==", "-"), install)


def install_npm(package: str) -> Path:
    """Install from npm; the folder holds `node_modules`."""

    def install(folder: Path) -> list[str]:
        (folder / "package.json").write_text('{"private": true}')
        return ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), package]

    return _once(package.replace("@", "-"), install)


def _once(name: str, install: Callable[[Path], list[str]]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parallelchange" / "apps"
    target = cache / name
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))
        try:
            done = subprocess.run(install(new), check=False, capture_output=True, text=True, timeout=240)
            assert done.returncode == 0, done.stdout + done.stderr
            try:
                new.rename(target)
            except OSError:
                assert target.is_dir(), "another test has put it there, or nobody can"
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return target
