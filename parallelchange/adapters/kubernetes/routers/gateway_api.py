"""Gateway API HTTPRoute: with a Service as parent (Linkerd and other meshes) or a Gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from parallelchange.adapters.kubernetes.client import Object
from parallelchange.adapters.kubernetes.kinds import HTTP_ROUTE, SERVICE_PROFILE
from parallelchange.adapters.kubernetes.routers.form import Form, only_one
from parallelchange.adapters.kubernetes.routers.shares import weighted
from parallelchange.adapters.kubernetes.running import backend_names
from parallelchange.errors import NotFound

__all__ = ["GatewayForm"]


class GatewayForm(Form):
    """An HTTPRoute (facts: the Gateway API's reference, HTTPRouteRule and HTTPBackendRef)."""

    kind = HTTP_ROUTE

    def find(self) -> Object:
        """The one HTTPRoute that has a rule with backends of the Service, or the Service as its parent."""
        found = [item for item in self._all() if self._rules(item) or self._has_root_as_parent(item)]
        return only_one(self.cluster, self.kind, found, self.service, "routes to backends of")

    def weights(self, body: Object) -> list[list[tuple[str, object]]]:
        """Of every rule that has our backends; a weight that is left out is 1."""
        return [
            [(self._backend(ref), ref.get("weight", 1)) for ref in rule["backendRefs"]] for rule in self._rules(body)
        ]

    def patch(self, body: Object, shares: Mapping[str, int]) -> Object:
        """All rules, since a merge patch replaces lists whole; only weights of our backends differ."""
        ours = self._rules(body)
        rules = []
        for rule in body["spec"]["rules"]:
            if rule not in ours:
                rules.append(rule)
                continue
            refs = [{**ref, "weight": share} for ref, share in weighted(rule["backendRefs"], self._backend, shares)]
            # A rule may name fewer backends than another; whoever gets a share must be in each.
            named = {self._backend(ref) for ref in refs}
            like = next(ref for ref in refs if self._backend(ref) in backend_names(self.service))
            refs += [
                {**like, "name": name, "weight": shares[name]} for name in shares if shares[name] and name not in named
            ]
            rules.append({**rule, "backendRefs": refs})
        return {"spec": {"rules": rules}}

    def follows(self, body: Object, shares: Mapping[str, Fraction]) -> bool:  # noqa: ARG002 - the route's status tells
        """Whether every parent's controller has accepted this very generation of the route."""
        generation = body["metadata"].get("generation", 0)
        answers = (body.get("status") or {}).get("parents") or []
        answered = {_name_of(answer["parentRef"]) for answer in answers}
        return (
            bool(answers)
            and all(_name_of(parent) in answered for parent in _parents(body))
            and all(_accepted(answer, generation) for answer in answers)
        )

    def overridden(self, body: Object) -> tuple[str, ...]:
        """Mirrors, and a ServiceProfile of the Service: Linkerd routes by it and not by any HTTPRoute."""
        name = self.cluster.full(self.kind, body["metadata"]["name"])
        mirrors = sorted({target for target in _mirrors(body) if target in backend_names(self.service)})
        return (
            *(f"{name} mirrors traffic to {m}, and mirrored requests write to the shared data too" for m in mirrors),
            *self._profiles(body),
        )

    def _profiles(self, body: Object) -> Iterator[str]:
        if not any(parent.get("kind") == "Service" for parent in _parents(body)):
            return
        try:
            profiles = self.cluster.all(SERVICE_PROFILE)
        except NotFound:
            return
        start = f"{self.service}.{self.cluster.namespace}.svc."
        for profile in profiles:
            if profile["metadata"]["name"].startswith(start):
                name = self.cluster.full(SERVICE_PROFILE, profile["metadata"]["name"])
                yield f"{name} is left over, and overrides the HTTPRoute: delete it"

    def _has_root_as_parent(self, body: Object) -> bool:
        return any(
            parent.get("kind") == "Service"
            and parent["name"] == self.service
            and parent.get("namespace", self.cluster.namespace) == self.cluster.namespace
            for parent in _parents(body)
        )

    def _rules(self, body: Object) -> list[Any]:
        names = backend_names(self.service)
        rules = (body.get("spec") or {}).get("rules") or []
        return [rule for rule in rules if any(self._backend(ref) in names for ref in rule.get("backendRefs") or ())]

    def _backend(self, ref: Mapping[str, Any]) -> str:
        """The Service a reference names; what is none of this namespace gets a name that no Service has."""
        kind, namespace = ref.get("kind", "Service"), ref.get("namespace", self.cluster.namespace)
        ours = kind == "Service" and ref.get("group", "") in ("", "core") and namespace == self.cluster.namespace
        return str(ref["name"]) if ours else f"{kind} {namespace}/{ref['name']}"


def _parents(body: Object) -> list[Any]:
    return (body.get("spec") or {}).get("parentRefs") or []


def _name_of(parent: Mapping[str, Any]) -> tuple[str, str]:
    return parent.get("kind", "Gateway"), parent["name"]


def _mirrors(body: Object) -> Iterator[str]:
    """Names of what gets a copy of requests, by a rule or by one of its backends."""
    for rule in (body.get("spec") or {}).get("rules") or ():
        for part in (rule, *(rule.get("backendRefs") or ())):
            for item in part.get("filters") or ():
                yield str(((item.get("requestMirror") or {}).get("backendRef") or {}).get("name", ""))


def _accepted(parent: Mapping[str, Any], generation: int) -> bool:
    conditions = {item["type"]: item for item in parent.get("conditions") or ()}
    accepted, resolved = conditions.get("Accepted"), conditions.get("ResolvedRefs")
    if accepted is None or accepted["status"] != "True" or accepted.get("observedGeneration", 0) < generation:
        return False
    return resolved is None or resolved["status"] == "True"
