"""Envoy's documents are pure functions of the split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.adapters.local_router import TrafficSplit
from parallelchange.local import envoy
from parallelchange.local.mesh import counters

PAGE = """\
# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_response_code="503",envoy_cluster_name="shop-canary"} 1
envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="shop-stable"} 2
# TYPE envoy_cluster_upstream_rq_total counter
envoy_cluster_upstream_rq_total{envoy_cluster_name="shop-stable"} 3
# TYPE envoy_cluster_external_upstream_rq counter
envoy_cluster_external_upstream_rq{envoy_response_code="200",envoy_cluster_name="shop-stable"} 2
# TYPE envoy_cluster_upstream_rq_time histogram
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="shop-stable",le="0.5"} 1
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="shop-stable",le="+Inf"} 2
envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="shop-stable"} 84.9
envoy_cluster_upstream_rq_time_count{envoy_cluster_name="shop-stable"} 2
"""


def split(canary: int) -> TrafficSplit:
    return TrafficSplit("shop", "42", "shop", {"shop-stable": 1000 - canary, "shop-canary": canary})


def action(document: dict[str, Any]) -> dict[str, Any]:
    (resource,) = document["resources"]
    (host,) = resource["virtual_hosts"]
    (route,) = host["routes"]
    found: dict[str, Any] = route["route"]
    return found


@given(st.integers(1, 999))
def test_shares_are_named_in_thousandths(weight: int) -> None:
    document = envoy.routes(split(weight))
    assert document["version_info"] == "42"
    assert action(document)["weighted_clusters"]["clusters"] == [
        {"name": "shop-stable", "weight": 1000 - weight},
        {"name": "shop-canary", "weight": weight},
    ]


@pytest.mark.parametrize(("weight", "only"), [(0, "shop-stable"), (1000, "shop-canary")])
def test_a_backend_without_a_share_is_not_named(weight: int, only: str) -> None:
    assert action(envoy.routes(split(weight))) == {"cluster": only, "timeout": "15s"}


def test_nothing_is_retried_and_no_header_is_added() -> None:
    text = str(envoy.routes(split(50)))
    assert "retry" not in text
    config = envoy.bootstrap(port=1, admin_port=2, routes_file=Path("/x/r.json"), clusters_file=Path("/x/c.json"))
    http = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert http["server_header_transformation"] == "PASS_THROUGH"
    assert http["http_filters"][0]["typed_config"]["suppress_envoy_headers"] is True


def test_everything_listens_on_the_loopback_address_and_files_are_watched() -> None:
    config = envoy.bootstrap(port=1, admin_port=2, routes_file=Path("/x/r.json"), clusters_file=Path("/x/c.json"))
    addresses = [config["admin"]["address"], config["static_resources"]["listeners"][0]["address"]]
    assert [address["socket_address"]["address"] for address in addresses] == ["127.0.0.1"] * 2
    assert config["dynamic_resources"]["cds_config"]["path_config_source"] == {
        "path": "/x/c.json",
        "watched_directory": {"path": "/x"},
    }


def test_clusters_are_called_as_their_services_and_let_idle_connections_go_early() -> None:
    resources = envoy.clusters({"shop-stable": 8001, "shop-canary": 8002})["resources"]
    assert [resource["name"] for resource in resources] == ["shop-stable", "shop-canary"]
    (options,) = resources[0]["typed_extension_protocol_options"].values()
    assert options["common_http_protocol_options"]["idle_timeout"] == "1s"


def test_the_last_bucket_lies_above_the_time_limit() -> None:
    assert list(envoy.BUCKETS) == sorted(envoy.BUCKETS)
    assert envoy.BUCKETS[-1] > float(envoy.TIMEOUT.removesuffix("s")) * 1000


def test_counters_are_read_per_cluster_and_code() -> None:
    assert counters(PAGE) == {
        "shop-canary": {"codes": {"503": 1}, "buckets": []},
        "shop-stable": {"codes": {"200": 2}, "buckets": [["0.5", 1], ["+Inf", 2]]},
    }
