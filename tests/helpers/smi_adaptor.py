"""Linkerd's own SMI adaptor, as it is published: it turns TrafficSplits into what Linkerd routes by."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

import pytest

from helpers.controlplane import Cluster
from parallelchange.local.process import LOOPBACK, Child, ReservedPort

__all__ = ["VARIABLE", "SmiAdaptor", "find_adaptor"]

VARIABLE = "LINKERD_SMI_ADAPTOR"
"""Names a built adaptor, for machines whose Go module proxy does not carry its module."""
_MODULE = "github.com/linkerd/linkerd-smi/adaptor@v0.2.7"


def find_adaptor() -> Path:
    """The adaptor's program, built from its Go module once; skips, with the reason, where there is none to be had."""
    if given := os.environ.get(VARIABLE):
        path = Path(given)
        assert path.is_file(), f"{VARIABLE} names {path}, which is not there"
        return path
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parallelchange" / "linkerd-smi-v0.2.7"
    if (cache / "adaptor").is_file():
        return cache / "adaptor"
    go = shutil.which("go")
    if go is None:
        pytest.skip(f"no Go to build Linkerd's SMI adaptor with; {VARIABLE} names none either")
    building = cache / "building"
    env = os.environ | {"CGO_ENABLED": "0", "GOBIN": str(building), "GOFLAGS": "-mod=mod"}
    done = subprocess.run([go, "install", _MODULE], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["go install failed"]
        pytest.skip(f"Linkerd's SMI adaptor cannot be built ({lines[-1].strip()}); build it, and name it in {VARIABLE}")
    (building / "adaptor").replace(cache / "adaptor")
    return cache / "adaptor"


class SmiAdaptor:
    """The adaptor, running against a test's cluster until the block ends.

    Args:
        cluster: Any cluster on the control plane: it follows the splits of all namespaces.
        program: As `find_adaptor` gives it.
        log: Where its output goes.
    """

    def __init__(self, cluster: Cluster, program: Path, log: Path) -> None:
        self.port = ReservedPort()
        command = [
            str(program),
            "-kubeconfig",
            str(cluster.kubeconfig),
            "-metrics-addr",
            f"{LOOPBACK}:{self.port.number}",
        ]
        self.child = Child(command, log=log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop()
        self.port.release()
