"""Manifests for a cluster, from the user's own: both versions, what moves traffic, the guard and the gates' Jobs.

Documents in, documents out: only `read` and `write` touch files.
"""

from __future__ import annotations

from parallelchange.emit.kubernetes.documents import MARKER, Document, parse, read
from parallelchange.emit.kubernetes.files import FOLDERS, Written, write
from parallelchange.emit.kubernetes.source import STRATEGIES, Options
from parallelchange.emit.kubernetes.tree import Emission, emit, guard_policies

__all__ = [
    "FOLDERS",
    "MARKER",
    "STRATEGIES",
    "Document",
    "Emission",
    "Options",
    "Written",
    "emit",
    "guard_policies",
    "parse",
    "read",
    "write",
]
