"""The canary annotations of ingress-nginx, on an Ingress beside the main one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

from parallelchange.adapters.kubernetes.client import Object
from parallelchange.adapters.kubernetes.kinds import INGRESS
from parallelchange.adapters.kubernetes.routers.base import Form, backend_names, only_one
from parallelchange.model import FULL

__all__ = ["NginxForm"]

_PREFIX = "nginx.ingress.kubernetes.io/"
_CANARY, _WEIGHT, _TOTAL = (f"{_PREFIX}canary{rest}" for rest in ("", "-weight", "-weight-total"))
_BESIDES = tuple(f"{_PREFIX}canary-by-{rest}" for rest in ("header", "cookie"))


class NginxForm(Form):
    """A pair of Ingresses (facts: ingress-nginx, Annotations, Canary)."""

    kind = INGRESS
    _main: tuple[str, ...] = ()

    def find(self) -> Object:
        """The canary Ingress; its main one is looked up on the way."""
        names = backend_names(self.service)
        found = [item for item in self.cluster.all(INGRESS) if names & set(_services(item))]
        main = [item for item in found if not _is_canary(item)]
        self._main = tuple(dict.fromkeys(name for item in main for name in _services(item) if name in names))
        canaries = [item for item in found if _is_canary(item)]
        return only_one(self.cluster, self.kind, canaries, self.service, "is the canary of")

    def shares(self, body: Object) -> dict[str, Fraction]:
        """What the canary's annotations leave goes to the main Ingress's Service."""
        annotations = body["metadata"]["annotations"]
        canary = tuple(dict.fromkeys(_services(body)))
        if len(canary) != 1 or len(self._main) != 1:
            told = f"{', '.join(self._main) or 'no Service'} and {', '.join(canary)}"
            raise ValueError(f"one main and one canary Service are needed, and there are {told}")
        if self._main == canary:
            raise ValueError(f"the main Ingress routes to {canary[0]} as well")
        try:
            total = int(annotations.get(_TOTAL, "100"))
            share = Fraction(int(annotations.get(_WEIGHT, "0")), total)
        except (ValueError, ZeroDivisionError):
            raise ValueError("its canary-weight and canary-weight-total are no whole numbers") from None
        if not 0 <= share <= 1:
            raise ValueError(f"its canary-weight is outside 0..{total}")
        return {self._main[0]: 1 - share, canary[0]: share}

    def patch(self, body: Object, shares: Mapping[str, int]) -> Object:
        """Out of a thousand, so that any share can be written."""
        canary = next(_services(body))
        return {"metadata": {"annotations": {_WEIGHT: str(shares[canary]), _TOTAL: str(FULL)}}}

    def overridden(self, body: Object) -> tuple[str, ...]:
        """Headers and cookies send requests to the canary whatever its weight is."""
        annotations = body["metadata"]["annotations"]
        name = self.cluster.full(self.kind, body["metadata"]["name"])
        return tuple(
            f"{name} has {key}, which sends traffic beside the weight" for key in _BESIDES if key in annotations
        )


def _is_canary(ingress: Object) -> bool:
    return bool((ingress["metadata"].get("annotations") or {}).get(_CANARY) == "true")


def _services(ingress: Object) -> Iterator[str]:
    """Names of the Services an Ingress routes to."""
    spec = ingress.get("spec") or {}
    backends = [
        path["backend"] for rule in spec.get("rules") or () for path in (rule.get("http") or {}).get("paths", ())
    ]
    if spec.get("defaultBackend"):
        backends.append(spec["defaultBackend"])
    return (backend["service"]["name"] for backend in backends if "service" in backend)
