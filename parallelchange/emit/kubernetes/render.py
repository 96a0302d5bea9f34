"""Objects as text: the same objects always give the same bytes."""

from __future__ import annotations

from io import StringIO
from textwrap import wrap
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from parallelchange.emit.kubernetes.documents import MARKER

__all__ = ["comment", "given", "render"]

_WIDTH = 110
_TEXT = "tag:yaml.org,2002:str"
# kubectl reads YAML 1.1, in which these are true and false.
_NOT_TEXT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", ""})


class _Representer(RoundTripRepresenter):
    """Writes text of ours so that YAML 1.1 and 1.2 both read text; text of the user's is left as it was written."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - what is used twice is written twice
        return True


def _text(representer: RoundTripRepresenter, data: str) -> Any:
    read_as = representer.dumper.resolver.resolve(ScalarNode, data, (True, False))
    style = '"' if str(read_as) != _TEXT or data.lower() in _NOT_TEXT else None
    return representer.represent_scalar(_TEXT, data, style=style)


_Representer.add_representer(str, _text)


def comment(text: str) -> str:
    """Text as comment lines; a line that begins with two spaces is a command and stands by itself."""
    lines: list[str] = []
    for line in text.strip().splitlines():
        lines += [line] if line.startswith("  ") else wrap(line, _WIDTH, break_long_words=False) or [""]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def render(about: str, *objects: dict[str, Any]) -> str:
    """The text of a file: our marker, what it is about, and the objects.

    Args:
        about: Told in comments; may be empty.
        objects: One document each.
    """
    writer = YAML(typ="rt")
    writer.Representer = _Representer
    writer.default_flow_style = False
    writer.width = 4096
    writer.indent(mapping=2, sequence=4, offset=2)
    parts = []
    for item in objects:
        stream = StringIO()
        writer.dump(item, stream)
        parts.append(stream.getvalue())
    return f"{MARKER}\n{comment(about)}" + "---\n".join(parts)


def given(about: str, text: str) -> str:
    """The text of a file whose content is passed on as it is."""
    return f"{MARKER}\n{comment(about)}{text}"
