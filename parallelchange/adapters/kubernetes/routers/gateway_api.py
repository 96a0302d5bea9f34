"""Gateway API HTTPRoute: with a Service as parent (Linkerd and other meshes) or a Gateway."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from parallelchange.adapters.kubernetes.client import Object
from parallelchange.adapters.kubernetes.kinds import HTTP_ROUTE, SERVICE_PROFILE, Kind
from parallelchange.adapters.kubernetes.routers.base import (
    Form,
    backend_names,
    newest_served,
    only_one,
    shares_of_weights,
)
from parallelchange.errors import NotFound

__all__ = ["GatewayForm"]


class GatewayForm(Form):
    """An HTTPRoute (facts: the Gateway API's reference, HTTPRouteRule and HTTPBackendRef)."""

    kind = HTTP_ROUTE
    _served: Kind | None = None

    def find(self) -> Object:
        """The one HTTPRoute that has a rule with backends of the Service."""
        found = [item for item in self.cluster.all(self.served()) if self._rules(item)]
        return only_one(self.cluster, self.kind, found, self.service, "routes to backends of")

    def shares(self, body: Object) -> dict[str, Fraction]:
        """The same in every rule that has our backends."""
        each = [self._rule_shares(rule) for rule in self._rules(body)]
        names = list(dict.fromkeys(name for shares in each for name in shares))
        told = [{name: shares.get(name, Fraction(0)) for name in names} for shares in each]
        if any(shares != told[0] for shares in told):
            raise ValueError("its rules give the backends different shares")
        return told[0]

    def patch(self, body: Object, shares: Mapping[str, int]) -> Object:
        """All rules, since a merge patch replaces lists whole; only weights of our backends differ."""
        ours = self._rules(body)
        rules = []
        for rule in body["spec"]["rules"]:
            if rule not in ours:
                rules.append(rule)
                continue
            refs = [{**ref, "weight": shares[ref["name"]]} for ref in rule["backendRefs"]]
            missing = [name for name in shares if shares[name] and name not in {ref["name"] for ref in refs}]
            # A rule may name fewer backends than another; whoever gets a share must be in each.
            refs += [{**rule["backendRefs"][0], "name": name, "weight": shares[name]} for name in missing]
            rules.append({**rule, "backendRefs": refs})
        return {"spec": {"rules": rules}}

    def follows(self, body: Object) -> bool:
        """Whether a controller has accepted this very generation of the route."""
        generation = body["metadata"].get("generation", 0)
        parents = (body.get("status") or {}).get("parents") or []
        return bool(parents) and all(_accepted(parent, generation) for parent in parents)

    def overridden(self, body: Object) -> tuple[str, ...]:
        """A ServiceProfile of the Service: Linkerd routes by it and not by any HTTPRoute."""
        parents = (body["spec"].get("parentRefs")) or []
        if not any(parent.get("kind") == "Service" for parent in parents):
            return ()
        try:
            profiles = self.cluster.all(SERVICE_PROFILE)
        except NotFound:
            return ()
        start = f"{self.service}.{self.cluster.namespace}.svc."
        names = [item["metadata"]["name"] for item in profiles if item["metadata"]["name"].startswith(start)]
        left = [self.cluster.full(SERVICE_PROFILE, name) for name in names]
        return tuple(f"{name} is left over, and overrides the HTTPRoute: delete it" for name in left)

    def served(self) -> Kind:
        """In the version the API server prefers."""
        if self._served is None:
            self._served = newest_served(self.cluster, self.kind)
        return self._served

    def _rules(self, body: Object) -> list[Any]:
        names = backend_names(self.service)
        rules = (body.get("spec") or {}).get("rules") or []
        return [rule for rule in rules if any(ref.get("name") in names for ref in rule.get("backendRefs") or ())]

    def _rule_shares(self, rule: Mapping[str, Any]) -> dict[str, Fraction]:
        weights: dict[str, Fraction] = {}
        for ref in rule["backendRefs"]:
            if ref.get("kind", "Service") != "Service" or ref.get("namespace", self.cluster.namespace) != (
                self.cluster.namespace
            ):
                raise ValueError(f"its backend {ref['name']} is no Service of this namespace")
            if ref["name"] in weights:
                raise ValueError(f"a rule names {ref['name']} twice")
            weights[ref["name"]] = Fraction(ref.get("weight", 1))
        shares = shares_of_weights(weights)
        if not any(shares.values()):
            raise ValueError("the weights of a rule are all 0")
        return shares


def _accepted(parent: Mapping[str, Any], generation: int) -> bool:
    conditions = {item["type"]: item for item in parent.get("conditions") or ()}
    accepted, resolved = conditions.get("Accepted"), conditions.get("ResolvedRefs")
    if accepted is None or accepted["status"] != "True" or accepted.get("observedGeneration", 0) < generation:
        return False
    return resolved is None or resolved["status"] == "True"
