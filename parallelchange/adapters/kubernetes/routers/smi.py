"""SMI TrafficSplit, in any version the API server serves; Linkerd follows it by a ServiceProfile."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from parallelchange.adapters.kubernetes.client import Object
from parallelchange.adapters.kubernetes.kinds import SERVICE_PROFILE, TRAFFIC_SPLIT
from parallelchange.adapters.kubernetes.routers.form import Form, newest_served, only_one
from parallelchange.adapters.kubernetes.routers.shares import shares_of, weighted
from parallelchange.errors import NotFound

__all__ = ["SmiForm"]

_SKIP = "smi.linkerd.io/skip"
"""Annotation of a ServiceProfile that Linkerd's SMI adaptor leaves alone."""


class SmiForm(Form):
    """A TrafficSplit (facts: the SMI specification, apis/traffic-split, v1alpha1 to v1alpha4)."""

    kind = TRAFFIC_SPLIT

    def find(self) -> Object:
        """The one TrafficSplit whose root is the Service."""
        found = [item for item in self._all() if (item.get("spec") or {}).get("service") == self.service]
        return only_one(self.cluster, self.kind, found, self.service, "splits")

    def weights(self, body: Object) -> list[list[tuple[str, object]]]:
        """Numbers (v1alpha2 and later) and quantities (v1alpha1) alike."""
        return [[(_name(item), item.get("weight")) for item in _backends(body)]]

    def shares(self, body: Object) -> dict[str, Fraction]:
        """The root Service must have none: a split that leads to itself leads nowhere."""
        shares = super().shares(body)
        if shares.pop(self.service, None):
            raise ValueError(f"its root Service {self.service} is one of its backends")
        return shares

    def backends(self, body: Object) -> tuple[str, ...]:
        """All but the root Service."""
        return tuple(name for name in super().backends(body) if name != self.service)

    def patch(self, body: Object, shares: Mapping[str, int]) -> Object:
        """In the weight form of the served version."""
        quantity = self._is_quantity(body)
        return {
            "spec": {
                "backends": [
                    {**item, "weight": f"{share}m" if quantity else share}
                    for item, share in weighted(_backends(body), _name, shares)
                ]
            }
        }

    def follows(self, body: Object, shares: Mapping[str, Fraction]) -> bool:  # noqa: ARG002 - the profile tells
        """Whether Linkerd's ServiceProfile has the same shares; True where no Linkerd is."""
        profile = self._profile()
        if profile is None:
            return not self._linkerd()
        overrides = (profile.get("spec") or {}).get("dstOverrides") or []
        try:
            live = shares_of([[(self._leads_to(item), item.get("weight")) for item in overrides]])
        except ValueError:
            return False
        return _taking(live) == _taking(shares)

    def overridden(self, body: Object) -> tuple[str, ...]:  # noqa: ARG002
        """A ServiceProfile that the adaptor is told to leave alone wins over the split."""
        profile = self._profile()
        if profile is None or _SKIP not in (profile["metadata"].get("annotations") or {}):
            return ()
        name = self.cluster.full(SERVICE_PROFILE, profile["metadata"]["name"])
        return (f"{name} is annotated {_SKIP}: Linkerd routes by it and not by the TrafficSplit",)

    def _is_quantity(self, body: Object) -> bool:
        """Whether this version's schema, as its CRD has it, takes weights as quantities; a number where both go."""
        kind = self.served()
        path = f"/openapi/v3/apis/{kind.group}/{kind.version}"
        try:
            document = self.cluster.request("get", path, f"read the schema of {kind.resource} {kind.version}")
        except NotFound:
            document = {}
        schema = _weight_schema(document)
        if schema is None:
            # Schemas are published a moment after a version is served: until then, as the object itself has it.
            return all(isinstance(item.get("weight"), str) for item in _backends(body))
        return schema.get("type") == "string"

    def _leads_to(self, override: Mapping[str, Any]) -> str:
        """The Service an override names, where it is one of this namespace."""
        host = str(override.get("authority", "")).partition(".svc.")[0]
        return host.removesuffix(f".{self.cluster.namespace}")

    def _linkerd(self) -> bool:
        try:
            newest_served(self.cluster, SERVICE_PROFILE)
        except NotFound:
            return False
        return True

    def _profile(self) -> Object | None:
        """The Service's ServiceProfile, whatever the cluster's domain; None where there is none."""
        try:
            profiles = self.cluster.all(SERVICE_PROFILE)
        except NotFound:
            return None
        start = f"{self.service}.{self.cluster.namespace}.svc."
        return next((item for item in profiles if item["metadata"]["name"].startswith(start)), None)


def _backends(body: Object) -> list[Any]:
    return (body.get("spec") or {}).get("backends") or []


def _name(item: Mapping[str, Any]) -> str:
    return str(item.get("service", ""))


def _taking(shares: Mapping[str, Fraction]) -> dict[str, Fraction]:
    return {name: share for name, share in shares.items() if share}


def _weight_schema(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of a backend's weight in an OpenAPI document of the group; None when it is not in there."""
    for schema in (document.get("components") or {}).get("schemas", {}).values():
        kinds = schema.get("x-kubernetes-group-version-kind") or ()
        if any(kind.get("kind") == TRAFFIC_SPLIT.name for kind in kinds):
            found = schema
            for key in ("spec", "backends"):
                found = (found.get("properties") or {}).get(key) or {}
            weight: Mapping[str, Any] = ((found.get("items") or {}).get("properties") or {}).get("weight") or {}
            return weight
    return None
