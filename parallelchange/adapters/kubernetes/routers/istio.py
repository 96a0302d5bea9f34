"""Istio VirtualService with a destination host for each version."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from parallelchange.adapters.kubernetes.client import Object
from parallelchange.adapters.kubernetes.kinds import VIRTUAL_SERVICE, Kind
from parallelchange.adapters.kubernetes.routers.base import (
    Form,
    backend_names,
    newest_served,
    only_one,
    shares_of_weights,
)

__all__ = ["IstioForm"]

_PERCENT = 10
"""Thousandths in a percent: Istio's own documents write weights as percent, so that is kept where it is exact."""


class IstioForm(Form):
    """A VirtualService (facts: Istio's reference, HTTPRouteDestination: weights are relative to their sum)."""

    kind = VIRTUAL_SERVICE
    _served: Kind | None = None

    def find(self) -> Object:
        """The one VirtualService that routes to backends of the Service."""
        found = [item for item in self.cluster.all(self.served()) if self._routes(item)]
        return only_one(self.cluster, self.kind, found, self.service, "routes to backends of")

    def shares(self, body: Object) -> dict[str, Fraction]:
        """The same in every HTTP route that has our backends."""
        each = [self._route_shares(route) for route in self._routes(body)]
        if any(shares != each[0] for shares in each):
            raise ValueError("its HTTP routes give the backends different shares")
        return each[0]

    def patch(self, body: Object, shares: Mapping[str, int]) -> Object:
        """All HTTP routes, since a merge patch replaces lists whole."""
        ours = self._routes(body)
        unit = _PERCENT if all(share % _PERCENT == 0 for share in shares.values()) else 1
        http = []
        for entry in body["spec"]["http"]:
            if entry not in ours:
                http.append(entry)
                continue
            known = {self._backend(item): item for item in entry["route"]}
            first = entry["route"][0]
            route = []
            for name, share in shares.items():
                item = known.get(name) or {**first, "destination": {**first["destination"], "host": name}}
                route.append({**item, "weight": share // unit})
            http.append({**entry, "route": route})
        return {"spec": {"http": http}}

    def served(self) -> Kind:
        """In the version the API server prefers."""
        if self._served is None:
            self._served = newest_served(self.cluster, self.kind)
        return self._served

    def overridden(self, body: Object) -> tuple[str, ...]:
        """Mirrored traffic reaches a version that may have no share at all."""
        name = self.cluster.full(self.kind, body["metadata"]["name"])
        mirrors = any(entry.get("mirror") or entry.get("mirrors") for entry in self._routes(body))
        return (f"{name} mirrors traffic, and mirrored requests write to the shared data too",) if mirrors else ()

    def _routes(self, body: Object) -> list[Any]:
        names = backend_names(self.service)
        entries = (body.get("spec") or {}).get("http") or []
        return [entry for entry in entries if any(self._backend(item) in names for item in entry.get("route") or ())]

    def _backend(self, item: Mapping[str, Any]) -> str:
        """The Service a destination names, where it is one of this namespace."""
        host = str((item.get("destination") or {}).get("host", ""))
        name, _, rest = host.partition(".")
        return name if not rest or rest.split(".")[0] == self.cluster.namespace else host

    def _route_shares(self, entry: Mapping[str, Any]) -> dict[str, Fraction]:
        weights: dict[str, Fraction] = {}
        for item in entry["route"]:
            name, subset = self._backend(item), item["destination"].get("subset")
            if subset:
                raise ValueError(f"it routes to subset {subset} of {name}; give each version a Service of its own")
            if name in weights:
                raise ValueError(f"a route names {name} twice")
            weights[name] = Fraction(item.get("weight", 0 if len(entry["route"]) > 1 else 1))
        return shares_of_weights(weights)
