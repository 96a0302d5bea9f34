"""Whether the backends could take a growing share: what is looked at before traffic moves. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from parallelchange.adapters.kubernetes.client import Object
from parallelchange.adapters.kubernetes.running import Namespace, matches
from parallelchange.change import Change

__all__ = ["problems"]


def problems(change: Change, seen: Namespace, backends: Sequence[str], *, full: bool) -> tuple[str, ...]:
    """What stands against giving the new version more traffic, in sentences.

    Args:
        change: The change.
        seen: What runs.
        backends: Backend Services of the split.
        full: Whether the new version has all traffic already, so that nothing of the old one need be ready.
    """
    there = [name for name in backends if seen.behind(name).version is not None]
    return (
        *_takers(change, seen, there, full=full),
        *_ports(change.traffic.service, seen, there),
        *_selectors(seen, there),
    )


def _takers(change: Change, seen: Namespace, backends: Sequence[str], *, full: bool) -> Iterator[str]:
    for version in change.versions:
        if full and version is change.old:
            continue
        mine = [seen.behind(name) for name in backends if seen.behind(name).version == version.name]
        if not mine:
            yield f"no backend of Service {change.traffic.service} runs {version.name} and nothing else"
        elif not any(item.ready for item in mine):
            yield f"Service {', '.join(item.service for item in mine)}: no pod of {version.name} is ready"
        elif not any(item.endpoints for item in mine if item.ready):
            yield f"Service {', '.join(item.service for item in mine)} has no ready endpoint"


def _ports(root: str, seen: Namespace, backends: Sequence[str]) -> Iterator[str]:
    if root not in seen.services:
        yield f"there is no root Service {root}"
        return
    wanted = _numbers(seen.services[root])
    for name in backends:
        missing = sorted(wanted - _numbers(seen.services[name])) if name != root else []
        if missing:
            yield f"Service {name} has no port {', '.join(map(str, missing))}, which Service {root} has"


def _numbers(service: Object) -> set[int]:
    ports: list[dict[str, Any]] = service["spec"].get("ports") or []
    return {int(port["port"]) for port in ports}


def _selectors(seen: Namespace, backends: Sequence[str]) -> Iterator[str]:
    labels = [pod["metadata"].get("labels") for pod in seen.pods]
    labels += [item["spec"]["template"]["metadata"].get("labels") for item in seen.deployments.values()]
    for one, other in combinations(backends, 2):
        if any(matches(seen.selector(one), found) and matches(seen.selector(other), found) for found in labels):
            yield f"Services {one} and {other} select the same pods: their shares cannot be told apart"
