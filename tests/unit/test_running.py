"""What runs behind a Service, from what was listed."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.app import IMAGES, cluster_change

from parallelchange.adapters.kubernetes.running import Namespace
from parallelchange.change import Version
from parallelchange.layout import VERSION


def deployment(name: str, image: str, replicas: int | None = None, **labels: str) -> dict[str, Any]:
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": image}]}}
    return {
        "metadata": {"name": name},
        "spec": {"template": template} | ({"replicas": replicas} if replicas is not None else {}),
    }


def pod(name: str, *images: str, leaving: bool = False, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels} | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {})
    return {"metadata": metadata, "spec": {"containers": [{"name": image, "image": image} for image in images]}}


def namespace(*deployments: dict[str, Any], pods: tuple[dict[str, Any], ...] = ()) -> Namespace:
    services = {
        name: {"metadata": {"name": name}, "spec": {"selector": selector}}
        for name, selector in (("shop", {"app": "shop"}), ("shop-canary", {"app": "shop", "role": "canary"}))
    }
    return Namespace(cluster_change(), pods, services, {d["metadata"]["name"]: d for d in deployments}, ())


V1, V2 = IMAGES["v1"], IMAGES["v2"]
OLD, NEW = cluster_change().versions
THIRD = "registry.example/shop:0"


@pytest.mark.parametrize(
    ("deployments", "wanted"),
    [
        ((), 0),
        # None of them is ready, and there is no pod: they are asked for all the same.
        ((deployment("shop", V1, 3, app="shop"),), 3),
        ((deployment("shop", V1, app="shop"),), 1),
        ((deployment("shop", V1, 0, app="shop"),), 0),
        ((deployment("shop", V2, 3, app="shop"),), 0),
        ((deployment("shop", V1, 2, app="shop"), deployment("worker", V1, 1, app="worker")), 3),
    ],
)
def test_copies_are_asked_for_whether_they_start_or_not(deployments: tuple[dict[str, Any], ...], wanted: int) -> None:
    assert namespace(*deployments).wanted(OLD, "shop") == wanted


def test_by_its_label_a_version_is_told_behind_the_service_alone() -> None:
    old = Version(name="v1", application_name=None, statements=None, probe=None, build=None)
    label = {VERSION: "v1"}
    other = deployment("another-app", THIRD, 1, app="another", **label)
    mine = deployment("shop", THIRD, 2, app="shop", **label)
    assert namespace(other).wanted(old, "shop") == 0
    assert namespace(other, mine).wanted(old, "shop") == 2


def test_a_third_version_is_told_wherever_it_is_behind_the_service() -> None:
    fine = (deployment("shop", V1, 1, app="shop"), deployment("shop-canary", V2, 1, app="shop", role="canary"))
    assert namespace(*fine, pods=(pod("a", V1, app="shop"), pod("b", V2, app="shop"))).others("shop") == ()
    assert namespace(deployment("other", THIRD, 1, app="other"), pods=(pod("c", THIRD),)).others("shop") == ()
    assert namespace(deployment("shop-0", THIRD, 0, app="shop")).others("shop") == ()
    told = namespace(
        deployment("shop-0", THIRD, 1, app="shop"),
        pods=(pod("gone-soon", THIRD, app="shop", leaving=True), pod("both", V1, V2, app="shop")),
    ).others("shop")
    assert [each.split(" runs ")[0] for each in told] == ["Deployment shop-0", "Pod gone-soon", "Pod both"]
