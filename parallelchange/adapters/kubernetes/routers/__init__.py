"""Routers of the cluster: one file for each kind of object that moves traffic."""

from __future__ import annotations

from parallelchange.adapters.kubernetes.client import Cluster
from parallelchange.adapters.kubernetes.routers.base import ClusterRouter
from parallelchange.adapters.kubernetes.routers.flagd import FlagdForm
from parallelchange.adapters.kubernetes.routers.form import Form
from parallelchange.adapters.kubernetes.routers.gateway_api import GatewayForm
from parallelchange.adapters.kubernetes.routers.istio import IstioForm
from parallelchange.adapters.kubernetes.routers.nginx import NginxForm
from parallelchange.adapters.kubernetes.routers.smi import SmiForm
from parallelchange.adapters.kubernetes.running import Running
from parallelchange.change import Change

__all__ = ["ROUTERS", "ClusterRouter", "make_router"]

ROUTERS: dict[str, type[Form]] = {
    "smi": SmiForm,
    "gateway-api": GatewayForm,
    "nginx": NginxForm,
    "istio": IstioForm,
    "flagd": FlagdForm,
}
"""Kinds of router by their name in the change file."""


def make_router(change: Change, cluster: Cluster, running: Running) -> ClusterRouter:
    """The router a change names."""
    form = ROUTERS[change.traffic.router](cluster, change.traffic.service)
    return ClusterRouter(change, cluster, running, form)
