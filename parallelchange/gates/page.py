"""The gates' page, rendered from what the gates say of themselves: `python -m parallelchange.gates.page`."""

from __future__ import annotations

from parallelchange.gates import GATES

__all__ = ["render"]


def render() -> str:
    """The gates as Markdown."""
    parts = []
    for gate in GATES.values():
        before = ", ".join(f"`{act}`" for act in sorted(gate.guards))
        parts.append(
            f"**`{gate.id}`** {gate.what}\n"
            f"*Why:* {gate.why}\n"
            f"*Blocks, for example:* {gate.example}\n"
            f"*Then:* {gate.remedy}. *Stands before:* {before}.\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    import sys

    sys.stdout.write(render())
