"""What runs an app version, by the names its figures are kept under."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Target"]


@dataclass(frozen=True)
class Target:
    """What runs one app version and takes traffic.

    All of it must be told of, so that nothing that serves goes unmeasured: what takes no traffic, and so may
    have no figures, is not to be named.

    Args:
        namespace: Namespace of all of it.
        deployments: Deployments whose pods run the version.
        services: Backend Services whose pods run the version.
    """

    namespace: str
    deployments: tuple[str, ...]
    services: tuple[str, ...]
