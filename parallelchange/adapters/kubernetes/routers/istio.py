"""Istio VirtualService with a destination host for each version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from parallelchange.adapters.kubernetes.client import Object
from parallelchange.adapters.kubernetes.kinds import VIRTUAL_SERVICE
from parallelchange.adapters.kubernetes.routers.form import Form, only_one
from parallelchange.adapters.kubernetes.routers.shares import weighted
from parallelchange.adapters.kubernetes.running import backend_names

__all__ = ["IstioForm"]

_PERCENT = 10
"""Thousandths in a percent: Istio's own documents write weights as percent, so that is kept where it is exact."""


class IstioForm(Form):
    """A VirtualService (facts: Istio's reference, HTTPRouteDestination: weights are relative to their sum)."""

    kind = VIRTUAL_SERVICE

    def find(self) -> Object:
        """The one VirtualService that routes to backends of the Service."""
        found = [item for item in self._all() if self._routes(item)]
        return only_one(self.cluster, self.kind, found, self.service, "routes to backends of")

    def weights(self, body: Object) -> list[list[tuple[str, object]]]:
        """Of every HTTP route that has our backends; a weight that is left out is 0, where there are several."""
        return [
            [(self._backend(item), item.get("weight", 0 if len(entry["route"]) > 1 else 1)) for item in entry["route"]]
            for entry in self._routes(body)
        ]

    def shares(self, body: Object) -> dict[str, Fraction]:
        """None where a subset decides which pods get it."""
        for entry in self._routes(body):
            for item in entry["route"]:
                if subset := item["destination"].get("subset"):
                    host = self._host(item["destination"])
                    raise ValueError(f"it routes to subset {subset} of {host}; give each version a Service of its own")
        return super().shares(body)

    def patch(self, body: Object, shares: Mapping[str, int]) -> Object:
        """All HTTP routes, since a merge patch replaces lists whole."""
        ours = self._routes(body)
        unit = _PERCENT if all(share % _PERCENT == 0 for share in shares.values()) else 1
        http = []
        for entry in body["spec"]["http"]:
            if entry not in ours:
                http.append(entry)
                continue
            route = [
                {**item, "weight": share // unit} for item, share in weighted(entry["route"], self._backend, shares)
            ]
            named = {self._backend(item) for item in route}
            like = next(item for item in route if self._host(item["destination"]) in backend_names(self.service))
            for name in shares:
                if shares[name] and name not in named:
                    to = {**like["destination"], "host": name}
                    to.pop("subset", None)
                    route.append({**like, "destination": to, "weight": shares[name] // unit})
            http.append({**entry, "route": route})
        return {"spec": {"http": http}}

    def overridden(self, body: Object) -> tuple[str, ...]:
        """Mirrored traffic reaches a version that may have no share at all; what is not HTTP has no weights here."""
        name = self.cluster.full(self.kind, body["metadata"]["name"])
        names = backend_names(self.service)
        mirrors = sorted({host for host in self._mirrors(body) if host in names})
        other = [
            part
            for part in ("tcp", "tls")
            for entry in (body.get("spec") or {}).get(part) or ()
            if any(self._host(item.get("destination") or {}) in names for item in entry.get("route") or ())
        ]
        return (
            *(f"{name} mirrors traffic to {m}, and mirrored requests write to the shared data too" for m in mirrors),
            *(f"{name} routes {part} to backends of {self.service} as well, beside the weights" for part in other),
        )

    def _mirrors(self, body: Object) -> Iterator[str]:
        for entry in (body.get("spec") or {}).get("http") or ():
            single = [entry["mirror"]] if entry.get("mirror") else []
            for to in (*single, *(item.get("destination") or {} for item in entry.get("mirrors") or ())):
                yield self._host(to)

    def _routes(self, body: Object) -> list[Any]:
        names = backend_names(self.service)
        entries = (body.get("spec") or {}).get("http") or []
        return [
            entry
            for entry in entries
            if any(self._host(item.get("destination") or {}) in names for item in entry.get("route") or ())
        ]

    def _backend(self, item: Mapping[str, Any]) -> str:
        """The Service a route leads to; a subset of one gets a name that no Service has."""
        destination = item.get("destination") or {}
        host, subset = self._host(destination), destination.get("subset")
        return f"{host}, subset {subset}" if subset else host

    def _host(self, destination: Mapping[str, Any]) -> str:
        """The Service a destination names, where it is one of this namespace; else the host as it is."""
        host = str(destination.get("host", ""))
        name, _, rest = host.partition(".")
        return name if not rest or rest.split(".")[0] == self.cluster.namespace else host
