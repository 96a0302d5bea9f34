"""A wrong pass is the one unforgivable bug: what we say of a schema change is held against what it really breaks."""

from __future__ import annotations
