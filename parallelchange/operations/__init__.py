"""The kinds of database operations, one file each."""

from parallelchange.operations.base import Expression, Footprint, Operation, Problem, Sync, Writers
from parallelchange.operations.change_type import ChangeType
from parallelchange.operations.rename_column import RenameColumn
from parallelchange.operations.set_not_null import SetNotNull
from parallelchange.operations.split_column import SplitColumn

__all__ = [
    "OPERATIONS",
    "ChangeType",
    "Expression",
    "Footprint",
    "Operation",
    "Problem",
    "RenameColumn",
    "SetNotNull",
    "SplitColumn",
    "Sync",
    "Writers",
]

OPERATIONS = {kind.kind: kind for kind in (SplitColumn, RenameColumn, ChangeType, SetNotNull)}
"""Operation kinds by the key they have in a change file."""
