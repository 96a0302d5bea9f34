"""Linkerd's real SMI adaptor turns every split we write into the ServiceProfile with the same shares."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from helpers.app import client_of, cluster_change, shop
from helpers.controlplane import Cluster, wait_until
from helpers.kubelet import Kubelet
from helpers.smi_adaptor import SmiAdaptor, find_adaptor
from kubernetes.utils.quantity import parse_quantity

from parallelchange.adapters.kubernetes.kinds import TRAFFIC_SPLIT
from parallelchange.adapters.kubernetes.routers import make_router
from parallelchange.adapters.kubernetes.running import Running

pytestmark = pytest.mark.xdist_group("cluster-2")

WEIGHTS = (0, 1, 50, 125, 250, 500, 999, 1000)


@pytest.mark.parametrize("version", ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"])
def test_the_adaptor_gives_each_backend_the_share_we_wrote(
    cluster: Cluster, kubelet: Kubelet, tmp_path: Path, version: str
) -> None:
    program = find_adaptor()
    cluster.apply(shop("smi"))
    client, change = client_of(cluster), cluster_change("smi")
    router = make_router(change, client, Running(client, change))
    router.form._served = TRAFFIC_SPLIT.at(version)
    name = f"shop.{cluster.namespace}.svc.cluster.local"

    def shares() -> dict[str, Fraction]:
        found = cluster.kubectl("get", "serviceprofile", name, "--output=json", check=False)
        if found.returncode:
            return {}
        told: list[dict[str, Any]] = json.loads(found.stdout)["spec"].get("dstOverrides") or []
        weights = {each["authority"].split(".")[0]: Fraction(parse_quantity(str(each["weight"]))) for each in told}
        total = sum(weights.values(), Fraction(0))
        return {backend: weight / total for backend, weight in weights.items()}

    with SmiAdaptor(cluster, program, tmp_path / "adaptor.log"):
        for weight in WEIGHTS:
            split = router.set(weight, resource_version=router.get().resource_version)
            wanted = {"shop-stable": Fraction(1000 - weight, 1000), "shop-canary": Fraction(weight, 1000)}
            wait_until(lambda wanted=wanted: shares() == wanted, what=f"a ServiceProfile with {weight} thousandths")
            assert router.settled(split), "what Linkerd routes by is recognised as ours"
    client.close()


def test_a_split_the_adaptor_has_not_followed_yet_is_not_settled(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(shop("smi"))
    client, change = client_of(cluster), cluster_change("smi")
    router = make_router(change, client, Running(client, change))
    assert not router.settled(router.get())
    client.close()
