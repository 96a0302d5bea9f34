"""The user's manifests, read: each document as plain values, with the line of every key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scalarfloat import ScalarFloat
from ruamel.yaml.scalarint import ScalarInt
from ruamel.yaml.scalarstring import FoldedScalarString, LiteralScalarString, PlainScalarString, ScalarString

from parallelchange.errors import InvalidFile
from parallelchange.layout import LAYOUTS

__all__ = ["MARKER", "Document", "parse", "read"]

MARKER = "# Written by `parallelchange emit kubernetes`, which overwrites it."
"""First line of every file we write."""

Place = tuple[Any, ...]

_SUFFIXES = (".yaml", ".yml", ".json")
_READ_BACK = ("uid", "resourceVersion", "managedFields")
# An address with a password in it; one that Kubernetes or a shell puts in later is none.
_PASSWORD = re.compile(r"://[^\s/:@]*:(?!\$[({])[^\s/@]+@")


@dataclass(frozen=True)
class Document:
    """One document of a manifest.

    Args:
        path: The file it is in.
        data: Its values. Text is kept as it was written: quoted text stays quoted, `on` stays `on`.
        text: The document as it stands in the file.
        lines: Place of each key to its line.
    """

    path: Path
    data: dict[str, Any]
    text: str
    lines: Mapping[Place, int]

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.data["kind"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.data["metadata"]["name"])

    @property
    def namespace(self) -> str | None:
        """Its namespace; None where the context decides."""
        found = self.data["metadata"].get("namespace")
        return None if found is None else str(found)

    @property
    def told(self) -> str:
        """What it is and where, for messages."""
        return f"{self.kind} {self.name} ({self.path}:{self.line()})"

    def line(self, *place: Any) -> int:
        """The line of a key, or of the nearest one above it."""
        return next((self.lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self.lines), 1)

    def error(self, message: str, *place: Any, hint: str | None = None) -> InvalidFile:
        """An error at the line of a key."""
        return InvalidFile(f"{self.kind} {self.name}: {message}", path=self.path, line=self.line(*place), hint=hint)

    def get(self, *place: Any, kind: type = dict, default: Any = None) -> Any:
        """A value, by its place.

        Args:
            place: The keys that lead to it.
            kind: What it must be.
            default: What is given where it is not there.

        Raises:
            InvalidFile: It is something else.
        """
        found: Any = self.data
        for end, key in enumerate(place, start=1):
            if isinstance(found, list) and isinstance(key, int):
                found = found[key]
            elif isinstance(found, dict):
                found = found.get(key)
            else:
                raise self.error(f"`{_dotted(place[: end - 1])}` is no {_KINDS[dict]}", *place[: end - 1])
            if found is None:
                return default
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            raise self.error(f"`{_dotted(place)}` is no {_KINDS[kind]}", *place)
        return found

    def labels(self, *place: Any) -> dict[str, str]:
        """Labels, or a selector, by their place; empty where there are none."""
        found = self.get(*place, default={})
        for key, value in found.items():
            if not isinstance(value, str):
                raise self.error(
                    f"`{_dotted((*place, key))}` is {value!r}, and labels are text",
                    *place,
                    key,
                    hint="put it in quotes",
                )
        return dict(found)


_KINDS = {dict: "mapping", list: "list", str: "text", int: "whole number"}


def _dotted(place: Sequence[Any]) -> str:
    return ".".join(map(str, place)) or "the document"


def read(paths: Sequence[Path]) -> list[Document]:
    """Read manifests: files, and the `*.yaml`, `*.yml` and `*.json` of folders.

    Raises:
        InvalidFile: One cannot be read, or holds what cannot be used.
    """
    documents: list[Document] = []
    for path in paths:
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES) if path.is_dir() else [path]
        if not files:
            raise InvalidFile("there is no manifest in this folder", path=path, hint="name a file, or another folder")
        for file in files:
            try:
                text = file.read_text(encoding="utf-8-sig")
            except FileNotFoundError:
                raise InvalidFile("there is no such manifest", path=file) from None
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidFile(f"cannot be read: {error}", path=file) from None
            documents += parse(file, text)
    return documents


def parse(path: Path, text: str) -> list[Document]:
    """The documents of a manifest.

    Args:
        path: The file, for messages.
        text: What is in it.

    Raises:
        InvalidFile: It is no YAML, or holds what cannot be used.
    """
    if text.startswith(MARKER):
        raise InvalidFile("was written by `emit` itself", path=path, line=1, hint="give the app's own manifests")
    try:
        return [_document(path, *found) for found in _load(text)]
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise InvalidFile(f"is no YAML: {error.problem}", path=path, line=line) from None
    except (YAMLError, RecursionError, ValueError) as error:
        raise InvalidFile(f"is no YAML: {error}", path=path) from None


class _Constructor(RoundTripConstructor):
    """Leaves dates as they were written: for Kubernetes they are text."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", RoundTripConstructor.construct_scalar)


def _load(text: str) -> Iterator[tuple[Any, str]]:
    """Each document that is not empty, with its text."""
    loader = YAML(typ="rt")
    loader.Constructor = _Constructor
    loader.preserve_quotes = True
    # Where a document begins and ends is known to its nodes only, what is in it better to the loader.
    nodes = list(YAML(typ="rt").compose_all(text))
    for node, loaded in zip(nodes, loader.load_all(text), strict=True):
        if loaded is not None:
            yield loaded, text[node.start_mark.index : node.end_mark.index].rstrip() + "\n"


def _document(path: Path, loaded: Any, text: str) -> Document:
    first = loaded.lc.line + 1 if hasattr(loaded, "lc") else 1
    if not isinstance(loaded, dict):
        raise InvalidFile("holds a document that is no object", path=path, line=first)
    lines: dict[Place, int] = {(): first}
    data = _plain(loaded, (), lines)

    def refuse(message: str, *place: Any, hint: str | None = None) -> InvalidFile:
        return InvalidFile(message, path=path, line=lines.get(place, first), hint=hint)

    kind = data.get("kind")
    if kind == "Kustomization" or path.name in ("kustomization.yaml", "kustomization.yml"):
        raise refuse(
            "a kustomization is no manifest",
            hint=f"build it: kubectl kustomize {path.parent} > all.yaml; give all.yaml",
        )
    for key in ("apiVersion", "kind"):
        if not isinstance(data.get(key), str):
            raise refuse(f"a document has no `{key}`", key)
    if str(kind).endswith("List") and isinstance(data.get("items"), list):
        raise refuse(f"{kind} is a list", "kind", hint="give each object as a document of its own, with --- between")
    metadata = data.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise refuse(f"a {kind} has no `metadata.name`", "metadata")
    document = Document(path, data, text, lines)
    _refuse_what_is_not_a_manifest(document)
    return document


def _refuse_what_is_not_a_manifest(document: Document) -> None:
    if document.kind == "Secret" and document.data["apiVersion"] == "v1":
        raise document.error("a Secret is not copied", hint="leave it out: name the other files one by one")
    for key in _READ_BACK:
        if key in document.data["metadata"]:
            hint = "give the manifest as it was before it was applied"
            raise document.error(f"`metadata.{key}` was read from a cluster", "metadata", key, hint=hint)
    for label in (layout.label for layout in LAYOUTS.values()):
        if label in document.labels("metadata", "labels"):
            hint = "give the app's own manifests: a role is given here"
            raise document.error(f"has a role already: `{label}`", "metadata", "labels", label, hint=hint)
    for place, value in _texts(document.data, ()):
        if _PASSWORD.search(value):
            hint = "keep it in a Secret: valueFrom.secretKeyRef"
            raise document.error(f"`{_dotted(place)}` holds a password", *place, hint=hint)


def _texts(node: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(node, str):
        yield place, node
    elif isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _texts(value, (*place, key))


def _plain(node: Any, place: Place, lines: dict[Place, int]) -> Any:
    """Turn ruamel's containers into plain ones, without anchors, and keep the line of every key."""
    marked: Any = node  # which has the lines beside its values
    if isinstance(node, dict):
        plain = {}
        for key, value in node.items():
            # What a merge key brought in has no line of its own.
            with suppress(AttributeError, KeyError, TypeError):
                lines[*place, key] = marked.lc.key(key)[0] + 1
            plain[_scalar(key)] = _plain(value, (*place, key), lines)
        return plain
    if isinstance(node, list):
        for index in range(len(node)):
            with suppress(AttributeError, KeyError, TypeError):
                lines[*place, index] = marked.lc.item(index)[0] + 1
        return [_plain(value, (*place, index), lines) for index, value in enumerate(node)]
    return _scalar(node)


def _scalar(node: Any) -> Any:
    """A scalar that is written as it was read, but for its anchor, comment and folds."""
    if isinstance(node, FoldedScalarString):
        return LiteralScalarString(str(node))
    if isinstance(node, ScalarString):
        return type(node)(str(node))
    if isinstance(node, str):
        return PlainScalarString(node)
    if isinstance(node, ScalarBoolean):
        return bool(node)
    if isinstance(node, ScalarInt | ScalarFloat) and node.yaml_anchor():
        return int(node) if isinstance(node, ScalarInt) else float(node)
    return node
