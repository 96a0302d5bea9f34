"""The canary annotations of ingress-nginx, on an Ingress beside the main one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from parallelchange.adapters.kubernetes.client import Object
from parallelchange.adapters.kubernetes.kinds import INGRESS
from parallelchange.adapters.kubernetes.routers.form import Form, only_one
from parallelchange.adapters.kubernetes.running import backend_names
from parallelchange.model import FULL

__all__ = ["NginxForm"]

_PREFIX = "nginx.ingress.kubernetes.io/"
_CANARY, _WEIGHT, _TOTAL = (f"{_PREFIX}canary{rest}" for rest in ("", "-weight", "-weight-total"))
_BESIDES = tuple(f"{_PREFIX}{key}" for key in ("canary-by-header", "canary-by-cookie", "mirror-target"))
# As Go reads them: Python's own int() and bool() take more, and less.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})


class NginxForm(Form):
    """A pair of Ingresses (facts: ingress-nginx, Annotations, Canary)."""

    kind = INGRESS
    _main: tuple[Object, ...] = ()

    def find(self) -> Object:
        """The canary Ingress; what it is the canary of is looked up on the way."""
        names = backend_names(self.service)
        found = [item for item in self._all() if names & set(_services(item))]
        self._main = tuple(item for item in found if not _is_canary(item))
        canaries = [item for item in found if _is_canary(item)]
        return only_one(self.cluster, self.kind, canaries, self.service, "is the canary of")

    def weights(self, body: Object) -> list[list[tuple[str, object]]]:
        """What the canary's annotations leave goes to the main Ingress's Service."""
        names = backend_names(self.service)
        main = tuple(dict.fromkeys(name for item in self._main for name in _services(item) if name in names))
        canary = tuple(dict.fromkeys(_services(body)))
        if len(canary) != 1 or len(main) != 1:
            told = f"{', '.join(main) or 'no Service'} and {', '.join(canary)}"
            raise ValueError(f"one main and one canary Service are needed, and there are {told}")
        if main == canary:
            raise ValueError(f"the main Ingress routes to {canary[0]} as well")
        annotations = body["metadata"]["annotations"]
        weight, total = annotations.get(_WEIGHT, "0"), annotations.get(_TOTAL, "100")
        if not (_WHOLE.fullmatch(weight) and _WHOLE.fullmatch(total)):
            return [[(main[0], f"{total} less {weight}"), (canary[0], weight)]]
        return [[(main[0], int(total) - int(weight)), (canary[0], int(weight))]]

    def patch(self, body: Object, shares: Mapping[str, int]) -> Object:
        """Out of a thousand, so that any share can be written."""
        canary = next(_services(body))
        return {"metadata": {"annotations": {_WEIGHT: str(shares[canary]), _TOTAL: str(FULL)}}}

    def overridden(self, body: Object) -> tuple[str, ...]:
        """Headers, cookies and mirrors reach the canary whatever its weight is, and other paths never do."""
        besides = (
            f"{self.cluster.full(self.kind, item['metadata']['name'])} has {key}, which sends traffic beside the weight"
            for item in (body, *self._main)
            for key in _BESIDES
            if key in (item["metadata"].get("annotations") or {})
        )
        names = backend_names(self.service)
        main, canary = {p for item in self._main for p in _places(item, names)}, set(_places(body, names))
        name = self.cluster.full(self.kind, body["metadata"]["name"])
        apart = (
            f"{name} and its main Ingress differ in {place}: its weight says nothing there" for place in main ^ canary
        )
        return (*besides, *sorted(apart))


def _is_canary(ingress: Object) -> bool:
    return (ingress["metadata"].get("annotations") or {}).get(_CANARY) in _TRUE


def _backends(ingress: Object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Host and path, and the backend, of everything an Ingress routes."""
    spec = ingress.get("spec") or {}
    for rule in spec.get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            yield f"{rule.get('host', '*')}{path.get('path', '/')}", path["backend"]
    if spec.get("defaultBackend"):
        yield "the default backend", spec["defaultBackend"]


def _services(ingress: Object) -> Iterator[str]:
    """Names of the Services an Ingress routes to."""
    return (backend["service"]["name"] for _, backend in _backends(ingress) if "service" in backend)


def _places(ingress: Object, names: frozenset[str]) -> Iterator[str]:
    """Where an Ingress routes to one of these Services."""
    return (place for place, backend in _backends(ingress) if (backend.get("service") or {}).get("name") in names)
