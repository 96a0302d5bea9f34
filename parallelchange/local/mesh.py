"""What keeps Envoy in step with the traffic split, and keeps a series of what Envoy counts."""

from __future__ import annotations

import json
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parallelchange.adapters.local_files import MESH, METRICS, TRAFFIC_SPLIT, write_object, write_text
from parallelchange.adapters.local_router import TrafficSplit
from parallelchange.errors import Unavailable
from parallelchange.local.envoy import Envoy, routes

__all__ = ["Follower", "Series", "counters"]

POLL = 0.05
"""Seconds between two looks at the split."""
SCRAPE = 1.0
"""Seconds between two readings of the counters."""
KEPT = 1200
"""Readings kept in the series: twenty minutes."""

_SLACK = 60
_CONFIRM_LIMIT = 5.0
_ROUTES_IN_FORCE = "/config_dump?resource=dynamic_route_configs"
_STATS = "/stats/prometheus?usedonly&filter=upstream_rq_(time|[0-9]%2B)$"
_REQUESTS = "envoy_cluster_upstream_rq_total"  # the parser's name for envoy_cluster_upstream_rq
_LATENCY = "envoy_cluster_upstream_rq_time_bucket"


class Follower:
    """Has Envoy route by the split in the file, and says in `mesh.json` once it does.

    Args:
        state_dir: Where the split and `mesh.json` are.
        envoy: A started Envoy.
        backends: The services it has clusters for.
    """

    def __init__(self, state_dir: Path, envoy: Envoy, backends: Iterable[str]) -> None:
        self._split_file, self._mesh_file = state_dir / TRAFFIC_SPLIT, state_dir / MESH
        self._envoy, self._backends = envoy, frozenset(backends)
        self._seen: tuple[int, int, int] | None = None
        self._mesh_file.unlink(missing_ok=True)

    def step(self) -> None:
        """Take up the split if its file was replaced since the last step.

        Raises:
            Unavailable: The file is of no use, or Envoy does not take it; traffic stays as it was.
        """
        seen = self._identity()
        if seen == self._seen:
            return
        split = TrafficSplit.load(self._split_file)
        unknown = set(split.backends) - self._backends
        if unknown:
            raise Unavailable(f"{self._split_file}: no service {', '.join(sorted(unknown))} runs in this mesh")
        self._envoy.route(split)
        self._confirm(split)
        write_object(self._mesh_file, {"resourceVersion": split.resource_version, "confirmedAt": time.time()})
        self._seen = seen

    def close(self) -> None:
        """Take back what `mesh.json` says: nothing follows the split any more."""
        self._mesh_file.unlink(missing_ok=True)

    def _identity(self) -> tuple[int, int, int]:
        try:
            status = self._split_file.stat()
        except FileNotFoundError:
            raise Unavailable(f"{self._split_file} is gone; traffic stays as it was", hint="restore the file") from None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _confirm(self, split: TrafficSplit) -> None:
        # Not by the version alone: a file edited by hand may say something new under the old version.
        document = routes(split)
        wanted = (document["version_info"], document["resources"][0])
        deadline = time.monotonic() + _CONFIRM_LIMIT
        while self._in_force() != wanted:
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"Envoy did not take up version {split.resource_version} of {self._split_file}; "
                    f"see {self._envoy.log}"
                )
            time.sleep(0.01)

    def _in_force(self) -> tuple[str | None, Any] | None:
        configs: list[dict[str, Any]] = json.loads(self._envoy.admin(_ROUTES_IN_FORCE)).get("configs", [])
        return (configs[0].get("version_info"), configs[0].get("route_config")) if configs else None


class Series:
    """Readings of Envoy's counters, one JSON object a line, never many more than `KEPT` lines.

    Args:
        state_dir: Where the series is kept; a series of before is replaced.
        envoy: A started Envoy.
        backends: The services to keep; one that nobody called yet is kept with zeros.
    """

    def __init__(self, state_dir: Path, envoy: Envoy, backends: Iterable[str]) -> None:
        self._path, self._envoy, self._backends = state_dir / METRICS, envoy, tuple(backends)
        self._run = str(time.time_ns())
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._written = 0
        write_text(self._path, "")

    def step(self) -> None:
        """Add one reading.

        Raises:
            Unavailable: Envoy does not answer.
        """
        found = counters(self._envoy.admin(_STATS))
        nothing: dict[str, Any] = {"codes": {}, "buckets": []}
        kept = {name: found.get(name, nothing) for name in self._backends}
        line = json.dumps({"time": time.time(), "run": self._run, "clusters": kept}) + "\n"
        self._lines.append(line)
        if self._written >= KEPT + _SLACK:
            write_text(self._path, "".join(self._lines))
            self._written = len(self._lines)
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)
        self._written += 1


def counters(text: str) -> dict[str, dict[str, Any]]:
    """Read Envoy's Prometheus page: per cluster its answers by code, and its cumulative latency buckets.

    A request that Envoy had to answer itself, because the backend could not be reached, is counted by the
    code it answered with (503, 504) like any other; it has no latency.
    """
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, dict[str, Any]] = defaultdict(lambda: {"codes": {}, "buckets": []})
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            cluster = sample.labels.get("envoy_cluster_name", "")
            code = sample.labels.get("envoy_response_code")
            if sample.name == _REQUESTS and code is not None:
                found[cluster]["codes"][code] = int(sample.value)
            elif sample.name == _LATENCY:
                found[cluster]["buckets"].append([sample.labels["le"], int(sample.value)])
    return dict(found)
