"""A feature flag's fractional rollout, kept in a FeatureFlag for flagd: a toggle that moves traffic.

The flag's key is the root Service, and its variants are called as the backends' roles: `stable` and `canary`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parallelchange.adapters.kubernetes.client import Object
from parallelchange.adapters.kubernetes.kinds import FEATURE_FLAG
from parallelchange.adapters.kubernetes.routers.form import Form, only_one
from parallelchange.adapters.kubernetes.routers.shares import weighted
from parallelchange.layout import Role

__all__ = ["FlagdForm"]


class FlagdForm(Form):
    """A FeatureFlag of the OpenFeature operator (facts: flagd's flag definitions, `fractional`)."""

    kind = FEATURE_FLAG

    def find(self) -> Object:
        """The one FeatureFlag that has a flag named as the Service."""
        found = [item for item in self._all() if self.service in _flags(item)]
        return only_one(self.cluster, self.kind, found, self.service, "holds the flag of")

    def weights(self, body: Object) -> list[list[tuple[str, object]]]:
        """From `fractional` alone: what else a flag may decide by has no share."""
        flag = _flags(body)[self.service]
        if flag.get("state") != "ENABLED":
            raise ValueError(f"flag {self.service} is not ENABLED, so the app decides")
        _, pairs = _fractional(flag)
        for variant, *_ in pairs:
            if variant not in flag.get("variants", {}) or variant not in set(Role):
                raise ValueError(f"flag {self.service} has no variant {variant}, or it is no role of a backend")
        return [[(self._backend(pair), pair[1] if len(pair) > 1 else 1) for pair in pairs]]

    def patch(self, body: Object, shares: Mapping[str, int]) -> Object:
        """The flag's fractional, and what decides who is in it left as it is."""
        bucket, pairs = _fractional(_flags(body)[self.service])
        parts = [[pair[0], share] for pair, share in weighted(pairs, self._backend, shares)]
        targeting = {"fractional": [*bucket, *parts]}
        return {"spec": {"flagSpec": {"flags": {self.service: {"targeting": targeting}}}}}

    def overridden(self, body: Object) -> tuple[str, ...]:
        """Where targeting cannot be evaluated, the default variant is served."""
        default = _flags(body)[self.service].get("defaultVariant")
        name = self.cluster.full(self.kind, body["metadata"]["name"])
        return () if default == Role.STABLE else (f"{name}: the default variant is {default}, not {Role.STABLE}",)

    def _backend(self, pair: list[Any]) -> str:
        return f"{self.service}-{pair[0]}"


def _flags(body: Object) -> Mapping[str, Any]:
    return ((body.get("spec") or {}).get("flagSpec") or {}).get("flags") or {}


def _fractional(flag: Mapping[str, Any]) -> tuple[list[Any], list[list[Any]]]:
    """What a request is put into its bucket by, where that is said, and the pairs of variant and weight."""
    targeting = flag.get("targeting") or {}
    parts = targeting.get("fractional")
    if set(targeting) != {"fractional"} or not isinstance(parts, list):
        raise ValueError("its targeting is something else than one `fractional`")
    bucket = [part for part in parts[:1] if not isinstance(part, list)]
    pairs = parts[len(bucket) :]
    if not pairs or not all(isinstance(pair, list) and pair and isinstance(pair[0], str) for pair in pairs):
        raise ValueError("its `fractional` is no list of variants and weights")
    return bucket, pairs
