"""The demo's stage: the example's own copy, a database with its rows, both versions, the mesh and the load."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psycopg

from parallelchange.adapters.planning import load_plan, lock_path, write_lock
from parallelchange.adapters.postgres.revisions import Revisions
from parallelchange.emit.alembic import emit
from parallelchange.errors import Unavailable
from parallelchange.local.environment import LocalMesh
from parallelchange.local.postgres import scratch_postgres
from parallelchange.local.process import tied_to_us
from parallelchange.local.supervisor import Service
from parallelchange.plan import Plan

__all__ = ["BREAKS", "ShopStage", "example_path"]

BREAKS = {
    "lossy": "a `down` that loses data: blocked before any traffic",
    "old-statement": "expand breaks a recorded statement of the old version: blocked before any traffic",
    "slow-canary": "the new version is slow: blocked at the first stage",
    "failing-canary": "the new version fails some requests: blocked at the first stage",
    "undrained": "a session of the old version stays open: contract is refused",
}
"""What can be broken on purpose, and what should come of it."""

_EXAMPLE = "01_split_customer_name"
_LOSSY = "down: \"trim(first_name || ' ' || coalesce(last_name, ''))\""


def example_path() -> Path:
    """The example: in the installed package, or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "_data" / "examples" / _EXAMPLE, package.parent / "examples" / _EXAMPLE):
        if (place / "parallelchange.toml").is_file():
            return place
    raise Unavailable("the example the demo runs is not installed", hint="reinstall parallelchange")


class ShopStage:
    """Everything the demo needs, started in order and stopped in reverse.

    Args:
        folder: A folder of the demo's own; what was in it goes.
        rows: Customers to begin with.
        rate: Requests a second.
        soak: Seconds a stage is watched; None as the change says.
        broken: One of `BREAKS`, or None.
        say: Told what is being set up.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rows: int,
        rate: float,
        soak: float | None,
        broken: str | None,
        say: Callable[[str], None],
    ) -> None:
        self.folder, self.rows, self.rate, self.soak = folder, rows, rate, soak
        self.broken, self.say = broken, say
        self.change = folder / "changes" / "split-customer-name.yaml"
        self.state_dir, self.stats, self.log = folder / "state", folder / "load.json", folder / "acknowledged.jsonl"
        self.stage_file = folder / "stage"
        self.url, self.address = "", ""
        self.mesh: LocalMesh | None = None
        self._load: subprocess.Popen[bytes] | None = None
        self._held: psycopg.Connection[Any] | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _start(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        ignored = shutil.ignore_patterns("__pycache__", ".parallelchange", ".pytest_cache")
        shutil.copytree(example_path(), self.folder, ignore=ignored)
        if self.soak is not None:
            self._edit("soak:", f"soak: {self.soak:g}s")
        self.say("starting PostgreSQL")
        server = self._open.enter_context(scratch_postgres())
        self.url = server.create_database("shop")
        settings = {"database_url": self.url, "alembic": "alembic.ini", "changes": "changes", "state_dir": "state"}
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        (self.folder / "parallelchange.toml").write_text("\n".join(lines) + "\n")
        plan = load_plan(self.change)
        Revisions(self.url, plan, self.folder / "alembic.ini").to_base()
        self.say(f"filling it: {self.rows:,} customers")
        self._example("-m", "shop.seed", "--rows", str(self.rows))
        plan = self._break(plan)
        if self.broken == "undrained":
            # A forgotten worker of the old version: it holds a session and is no copy anybody could stop.
            self._held = self._open.enter_context(
                psycopg.connect(self.url, application_name="shop-v1", autocommit=True)
            )
        self.say("starting both versions and the mesh")
        self._open.callback(self._stop_mesh)
        self.mesh = LocalMesh(self.state_dir)
        root = plan.change.traffic.service
        services = {f"{root}-stable": self._service("v1"), f"{root}-canary": self._service("v2")}
        self.address = self.mesh.start(services, service=root, stable=f"{root}-stable", canary=f"{root}-canary")
        self._start_load()

    def _example(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "DATABASE_URL": self.url, **(env or {})},
        )
        if done.returncode:
            raise Unavailable(f"the example's `{' '.join(arguments)}` failed: {done.stderr.strip()[-500:]}")

    def _edit(self, key: str, line: str) -> None:
        """Replace the line of the change file that begins with a key."""
        text = self.change.read_text(encoding="utf-8")
        found = next(each.strip() for each in text.splitlines() if each.strip().startswith(key))
        self.change.write_text(text.replace(found, line), encoding="utf-8")

    def _break(self, plan: Plan) -> Plan:
        """Break what was asked for, with the means a careless developer has."""
        ini = self.folder / "alembic.ini"
        if self.broken == "lossy":
            self._edit("down:", _LOSSY)
            lock_path(self.change).unlink()
            plan = load_plan(self.change, self.url)
            emit(plan, ini)
            write_lock(plan)
        elif self.broken == "old-statement":
            # As `parallelchange record` gives it with SHOP_EXPORT=1: the nightly export is in it.
            kept = "statements: ../recorded/shop-v1.json"
            self._edit(kept, kept.replace(".json", "-export.json"))
            plan = load_plan(self.change)
        return plan

    def _service(self, version: str) -> Service:
        env = {"DATABASE_URL": self.url}
        if version == "v2" and self.broken == "slow-canary":
            env["SHOP_DELAY_MS"] = "1200"
        if version == "v2" and self.broken == "failing-canary":
            env["SHOP_FAIL_RATE"] = "0.1"
        if version == "v1" and self.broken == "old-statement":
            env["SHOP_EXPORT"] = "1"
        command = (
            sys.executable,
            "-m",
            "uvicorn",
            f"shop.{version}:app",
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
            "--no-access-log",
            "--log-level",
            "warning",
            "--timeout-keep-alive",
            "30",
        )
        sources = (self.folder / "shop" / "common.py", self.folder / "shop" / f"{version}.py")
        return Service(f"shop-{version}", command, env=env, cwd=self.folder, sources=sources)

    def _start_load(self) -> None:
        self.say(f"starting the load: {self.rate:g} requests/s, through {self.address}")
        self.stage_file.write_text("0%")
        errors = self._open.enter_context((self.folder / "load.log").open("wb"))
        self._load = subprocess.Popen(
            [
                *tied_to_us(),
                sys.executable,
                "-m",
                "parallelchange.local.load",
                "--url",
                self.address,
                "--log",
                str(self.log),
                "--stats",
                str(self.stats),
                "--stage-file",
                str(self.stage_file),
                "--rate",
                str(self.rate),
                "--customers",
                str(self.rows),
            ],
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
        self._open.callback(self.stop_load)

    def figures(self) -> dict[str, Any]:
        """The load's figures as they stand; empty before the first."""
        try:
            figures: dict[str, Any] = json.loads(self.stats.read_text())
        except (OSError, ValueError):
            return {}
        return figures

    def check(self) -> None:
        """See that all that should run does.

        Raises:
            Unavailable: Something stopped by itself.
        """
        assert self.mesh is not None
        self.mesh.check()
        if self._load is not None and self._load.poll() is not None:
            raise Unavailable(f"the load ended by itself: {(self.folder / 'load.log').read_text()[-500:]}")

    def stop_load(self) -> None:
        """Send no more, and wait for what is in flight."""
        if self._load is None:
            return
        self._load.send_signal(signal.SIGTERM)
        try:
            self._load.wait(20)
        except subprocess.TimeoutExpired:
            self._load.kill()
            self._load.wait()
        self._load = None

    def old_session_works(self) -> bool | None:
        """Whether the forgotten session of the old version can still work; None when there is none."""
        if self._held is None:
            return None
        return self._held.execute("SELECT id, name, email FROM customers ORDER BY id LIMIT 1").fetchone() is not None

    def _stop_mesh(self) -> None:
        if self.mesh is not None:
            self.mesh.stop()
