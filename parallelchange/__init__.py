"""Pairs the expand, migrate and contract phases of a database with the canary stages of a traffic split."""

__version__ = "0.1.0"
