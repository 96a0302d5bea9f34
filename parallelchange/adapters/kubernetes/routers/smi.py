"""SMI TrafficSplit, in any version the API server serves; Linkerd follows it by a ServiceProfile."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from parallelchange.adapters.kubernetes.client import Object
from parallelchange.adapters.kubernetes.kinds import SERVICE_PROFILE, TRAFFIC_SPLIT, Kind
from parallelchange.adapters.kubernetes.routers.base import Form, newest_served, only_one, shares_of_weights
from parallelchange.errors import NotFound

__all__ = ["SmiForm"]

_SKIP = "smi.linkerd.io/skip"
"""Annotation of a ServiceProfile that Linkerd's SMI adaptor leaves alone."""


class SmiForm(Form):
    """A TrafficSplit (facts: the SMI specification, apis/traffic-split, v1alpha1 to v1alpha4)."""

    kind = TRAFFIC_SPLIT
    _served: Kind | None = None
    _quantity: bool | None = None

    def find(self) -> Object:
        """The one TrafficSplit whose root is the Service."""
        found = [
            item for item in self.cluster.all(self.served()) if (item.get("spec") or {}).get("service") == self.service
        ]
        return only_one(self.cluster, self.kind, found, self.service, "splits")

    def shares(self, body: Object) -> dict[str, Fraction]:
        """From numbers (v1alpha2 and later) and quantities (v1alpha1) alike."""
        backends = (body.get("spec") or {}).get("backends") or []
        names = [item.get("service") for item in backends]
        if not names or len(set(names)) < len(names):
            raise ValueError("its backends are none, or one is named twice")
        if self.service in names:
            raise ValueError(f"its root Service {self.service} is one of its backends")
        return shares_of_weights({item["service"]: _weight_of(item) for item in backends})

    def patch(self, body: Object, shares: Mapping[str, int]) -> Object:
        """In the weight form of the served version."""
        backends = [{**item, "weight": self._weight(shares[item["service"]])} for item in body["spec"]["backends"]]
        return {"spec": {"backends": backends}}

    def follows(self, body: Object) -> bool:
        """Whether Linkerd's ServiceProfile has the same shares; True where no Linkerd is."""
        profile = self._profile()
        if profile is None:
            return not self._linkerd()
        overrides = (profile.get("spec") or {}).get("dstOverrides") or []
        live = {item["authority"].split(".")[0]: _weight_of(item) for item in overrides}
        return {name: share for name, share in shares_of_weights(live).items() if share} == {
            name: share for name, share in self.shares(body).items() if share
        }

    def overridden(self, body: Object) -> tuple[str, ...]:  # noqa: ARG002
        """A ServiceProfile that the adaptor is told to leave alone wins over the split."""
        profile = self._profile()
        if profile is None or _SKIP not in (profile["metadata"].get("annotations") or {}):
            return ()
        name = self.cluster.full(SERVICE_PROFILE, profile["metadata"]["name"])
        return (f"{name} is annotated {_SKIP}: Linkerd routes by it and not by the TrafficSplit",)

    def served(self) -> Kind:
        """In the version the API server prefers."""
        if self._served is None:
            self._served = newest_served(self.cluster, self.kind)
        return self._served

    def _weight(self, thousandths: int) -> int | str:
        return f"{thousandths}m" if self._is_quantity() else thousandths

    def _is_quantity(self) -> bool:
        """Whether this version's schema, as its CRD has it, takes weights as quantities; a number where both go."""
        if self._quantity is None:
            kind = self.served()
            path = f"/openapi/v3/apis/{kind.group}/{kind.version}"
            document = self.cluster.request("get", path, f"read the schema of {kind.resource} {kind.version}")
            self._quantity = _weight_schema(document).get("type") == "string"
        return self._quantity

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


def _weight_of(item: Mapping[str, Any]) -> Fraction:
    from kubernetes.utils.quantity import parse_quantity

    weight = item.get("weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float | str):
        raise ValueError(f"the weight {weight!r} is no number and no quantity")  # noqa: TRY004 - one kind of error for a bad object
    return Fraction(parse_quantity(str(weight)))


def _weight_schema(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a backend's weight in an OpenAPI document of the group."""
    for schema in (document.get("components") or {}).get("schemas", {}).values():
        kinds = schema.get("x-kubernetes-group-version-kind") or ()
        if any(kind.get("kind") == TRAFFIC_SPLIT.name for kind in kinds):
            found = schema
            for key in ("spec", "backends"):
                found = (found.get("properties") or {}).get(key) or {}
            weight: Mapping[str, Any] = ((found.get("items") or {}).get("properties") or {}).get("weight") or {}
            return weight
    return {}
