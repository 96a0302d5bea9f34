"""The change file: YAML read into a `Change`; every error has its place."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from parallelchange.change import (
    REHEARSAL_ROWS,
    Bound,
    Change,
    Mask,
    MetricsSpec,
    Probe,
    RehearsalSpec,
    Traffic,
    Version,
)
from parallelchange.changeform import (
    ChangeFile,
    ClientFile,
    MetricsFile,
    OperationFile,
    ProbeFile,
    RehearsalFile,
    SqlMaskFile,
    TrafficFile,
    VersionFile,
    json_schema,
)
from parallelchange.errors import InvalidFile
from parallelchange.model import FULL, TableName, parse_weight
from parallelchange.operations import OPERATIONS, Operation
from parallelchange.sessions import Client, Identity, problem_of

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["json_schema", "load_change"]

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_APPLICATION = re.compile(r"[\x20-\x7e]{1,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_IMAGE = re.compile(r"[a-z0-9][\w./:@-]{0,254}", re.ASCII)
_HTTP = re.compile(r"https?://[^\s/?#]+[^\s?#]*")
_QUERIES = {"istio": "istio", "nginx": "nginx"}
_OURS = "parallelchange"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BOUND = re.compile(r"(>=|<=)\s*(\d+(?:\.\d+)?)\s*(%|ms|s)")


_UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
_BRANCHES = ("ProbeFile", "MetricsFile", "ClientFile", "NewColumn", "SqlMaskFile", "str", "float", "none")


def load_change(path: Path) -> Change:
    """Read a change file.

    Args:
        path: The file. Paths in it are relative to its folder.

    Raises:
        InvalidFile: It is missing, is no YAML, or a key, type or reference in it is wrong.
    """
    from pydantic import TypeAdapter, ValidationError

    document, lines = _read_yaml(path)
    traffic = document.get("traffic")
    for index, stage in enumerate(traffic.get("stages") or () if isinstance(traffic, dict) else ()):
        if isinstance(stage, bool):  # which pydantic would take for a number
            _Reader(path, lines).fail(f"traffic.stages.{index}", f"{stage} is no share of traffic", "write it as 5%")
    try:
        raw = TypeAdapter(ChangeFile).validate_python(document)
    except ValidationError as error:
        raise _invalid(error, path, lines) from None
    return _Reader(path, lines).change(raw)


def _read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        document = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidFile("there is no such change file", path=path, hint="give the path of a change file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile(f"cannot be read: {error}", path=path) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise InvalidFile(f"is no YAML: {error.problem}", path=path, line=line) from None
    except (YAMLError, RecursionError, ValueError) as error:
        raise InvalidFile(f"is no YAML: {error}", path=path) from None
    if not isinstance(document, dict):
        raise InvalidFile("holds no change", path=path, line=1, hint="it starts with `change: some-name`")
    lines: dict[str, int] = {}
    return _plain(document, "", lines), lines


def _plain(node: Any, at: str, lines: dict[str, int]) -> Any:
    """Turn ruamel's containers into plain ones, and keep the line of every key."""
    if isinstance(node, dict):
        plain = {}
        for key, value in node.items():
            place = f"{at}.{key}" if at else str(key)
            _keep_line(lines, place, node, key)
            plain[key] = _plain(value, place, lines)
        return plain
    if isinstance(node, list):
        for index in range(len(node)):
            _keep_line(lines, f"{at}.{index}", node, index)
        return [_plain(value, f"{at}.{index}", lines) for index, value in enumerate(node)]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return node if kind is bool else kind(node)
    return node


def _keep_line(lines: dict[str, int], place: str, node: Any, key: Any) -> None:
    # What a merge key or a tag brought in has no line of its own: then that of what holds it is told.
    with suppress(AttributeError, KeyError, TypeError):
        places = node.lc
        lines[place] = (places.key(key) if isinstance(node, Mapping) else places.item(key))[0] + 1


def _invalid(error: ValidationError, path: Path, lines: dict[str, int]) -> InvalidFile:
    """Name the first error, by the deepest place of it that the file has; count the others."""
    errors = error.errors(include_url=False)
    # An unknown key is most often the cause of the others, such as the missing key it was meant to be.
    first = next((e for e in errors if e["type"] in _UNKNOWN_KEY), errors[0])
    # A union's branches are part of pydantic's location but not of the file.
    keys = [str(key) for key in first["loc"] if str(key) not in _BRANCHES and not str(key).startswith("literal[")]
    line = next((lines[p] for end in range(len(keys), 0, -1) if (p := ".".join(keys[:end])) in lines), 1)
    name = ".".join(keys)
    hint = None
    if first["type"] in _UNKNOWN_KEY:
        message = f"unknown key `{keys[-1]}` in {'.'.join(keys[:-1]) or 'the change'}"
        near = difflib.get_close_matches(keys[-1], _known_keys(), n=1)
        hint = f"did you mean `{near[0]}`?" if near else "see the JSON Schema of change files for the keys there are"
    elif first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        message = f"`{name}` is missing"
    else:
        message = f"`{name}`: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"
    if len(errors) > 1:
        message += f" (and {len(errors) - 1} more)"
    return InvalidFile(message, path=path, line=line, hint=hint)


def _known_keys() -> list[str]:
    found: set[str] = set()
    schema = json_schema()
    for part in (schema, *schema["$defs"].values()):
        found.update(part.get("properties", ()))
    return sorted(found)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, or a NUL in it
        return False


class _Reader:
    """Turns the file's words into values, with the place of each that makes no sense."""

    def __init__(self, path: Path, lines: dict[str, int]) -> None:
        self.path, self.lines = path, lines

    def change(self, raw: ChangeFile) -> Change:
        if not _NAME.fullmatch(raw.change):
            self.fail("change", f"{raw.change!r} is no name for a change", "use up to 40 of a-z, 0-9 and -")
        if not raw.database:
            self.fail("database", "there is no operation", "name at least one")
        old, new = self.version("old", raw.versions.old), self.version("new", raw.versions.new)
        if old.name == new.name:
            self.fail("versions.new.name", f"both versions are called {old.name}", "give each its own name")
        if old.application_name and old.application_name == new.application_name:
            self.fail(
                "versions.new.application_name",
                "both versions have the same application_name",
                "give each its own: it tells whose session is whose",
            )
        for key, version in (("old", old), ("new", new)):
            name = version.application_name
            if name is not None and not _APPLICATION.fullmatch(name):
                self.fail(
                    f"versions.{key}.application_name",
                    f"PostgreSQL would show {name!r} as another name",
                    "use up to 63 printable ASCII characters",
                )
            if name is not None and name.startswith(_OURS):
                self.fail(f"versions.{key}.application_name", f"{name!r} is the toolkit's own", "give it another")
        if raw.backfill.rows_per_second is not None and raw.backfill.rows_per_second < 1:
            self.fail("backfill.rows_per_second", "must be at least 1", "leave it out for no limit")
        traffic = self.traffic(raw.traffic)
        return Change(
            name=raw.change,
            path=self.path,
            old=old,
            new=new,
            traffic=traffic,
            database=tuple(self.operation(index, entry) for index, entry in enumerate(raw.database)),
            metrics=None if raw.metrics == "none" else self.metrics(raw.metrics, traffic),
            rows_per_second=raw.backfill.rows_per_second,
            max_age=self.seconds("evidence.max_age", raw.evidence.max_age),
            rehearsal=self.rehearsal(raw.rehearsal),
            clients=tuple(
                self.client(f"clients.{index}", entry, (old, new)) for index, entry in enumerate(raw.clients)
            ),
            lines=self.lines,
        )

    def version(self, key: str, raw: VersionFile) -> Version:
        at = f"versions.{key}"
        if not _VERSION.fullmatch(raw.name):
            self.fail(f"{at}.name", f"{raw.name!r} is no name for a version", "use up to 100 of a-z, A-Z, 0-9 and ._-")
        # It need not be there yet: the change comes first, and `record` writes the file that it names.
        statements = self.beside(f"{at}.statements", raw.statements)
        openapi = self.beside(f"{at}.openapi", raw.openapi)
        if openapi and not _is_file(openapi):
            self.fail(f"{at}.openapi", f"there is no file {raw.openapi}", "its path is relative to the change file")
        probe = None
        if isinstance(raw.probe, ProbeFile):
            if (raw.probe.url is None) == (raw.probe.command is None):
                self.fail(f"{at}.probe", "a probe is either a url or a command", "give one of them")
            probe = Probe(
                url=raw.probe.url,
                command=raw.probe.command,
                timeout=self.seconds(f"{at}.probe.timeout", raw.probe.timeout),
            )
        elif raw.probe is None:
            self.fail(
                f"{at}.probe",
                f"no probe tells whether {raw.name} works",
                "give a url or a command, or say `probe: none`",
            )
        return Version(
            name=raw.name,
            application_name=raw.application_name,
            statements=statements,
            probe=probe,
            build=raw.build,
            image=self.image(key, raw.image),
            role=raw.role,
            openapi=openapi,
        )

    def beside(self, at: str, written: str | None) -> Path | None:
        """A path that is relative to the change file, as a person would write it."""
        if not written:
            return None
        path = self.path.parent / written
        tidy = Path(os.path.normpath(path))
        try:
            with suppress(FileNotFoundError):
                tidy.stat()  # refuses what no file could be called
            return tidy if tidy.resolve() == path.resolve() else path  # a link may stand before a `..`
        except (OSError, ValueError, RuntimeError):
            self.fail(at, f"{written!r} is no path", "its path is relative to the change file")

    def client(self, at: str, raw: str | ClientFile, versions: tuple[Version, ...]) -> Client:
        """Sessions that may be there besides the versions'; none that could be a version's own."""
        found = Client(raw) if isinstance(raw, str) else Client(raw.application_name, raw.role, raw.address)
        problem = problem_of(found, [Identity(v.name, v.application_name, v.role) for v in versions])
        if problem:
            self.fail(at, problem, "name what is known to be there, by application_name, role or address (10.0.0.0/8)")
        return found

    def image(self, key: str, written: str | None) -> str | None:
        """The image of a version; a pipeline that has just built it says so in the environment."""
        variable = f"PARALLELCHANGE_IMAGE_{key.upper()}"
        image = os.environ.get(variable) or written
        if image is not None and not _IMAGE.fullmatch(image):
            self.fail(f"versions.{key}.image", f"{image!r} is no image", f"write NAME:TAG, also in {variable}")
        return image

    def operation(self, index: int, raw: OperationFile) -> Operation:
        named = [(kind, op) for kind in OPERATIONS if (op := getattr(raw, kind)) is not None]
        if len(named) != 1:
            self.fail(f"database.{index}", "each entry is exactly one operation", f"one of {', '.join(OPERATIONS)}")
        operation: Operation = named[0][1]
        return operation

    def traffic(self, raw: TrafficFile) -> Traffic:
        stages = []
        for index, text in enumerate(raw.stages):
            try:
                stages.append(parse_weight(text))
            except ValueError as error:
                self.fail(f"traffic.stages.{index}", str(error), "write shares like 5%, 12.5%, 100%")
        if not stages or stages != sorted(set(stages)) or stages[0] == 0 or stages[-1] != FULL:
            self.fail("traffic.stages", "stages grow from above 0% to 100%", "for example [5%, 25%, 50%, 100%]")
        return Traffic(
            router=raw.router,
            service=raw.service,
            stages=tuple(stages),
            soak=self.seconds("traffic.soak", raw.soak),
            drain=self.seconds("traffic.drain", raw.drain),
            drain_timeout=self.seconds("traffic.drain_timeout", raw.drain_timeout),
            layout=raw.layout,
        )

    def rehearsal(self, raw: RehearsalFile) -> RehearsalSpec:
        if raw.rows < 1:
            self.fail("rehearsal.rows", "must be at least 1", f"leave it out for {REHEARSAL_ROWS}")
        masks: dict[tuple[TableName, str], Mask] = {}
        for name, rule in raw.mask.items():
            key = f"rehearsal.mask.{name}"
            table, _, column = name.rpartition(".")
            if not column or not all(table.split(".")) or table.count(".") > 1:
                self.fail(key, f"{name!r} names no column", "write it as table.column or schema.table.column")
            expression = rule.sql if isinstance(rule, SqlMaskFile) else None
            if expression is not None and not expression.strip():
                self.fail(key, "the expression is empty", "write `{sql: EXPRESSION}`, `hash` or `null`")
            kind = "sql" if isinstance(rule, SqlMaskFile) else rule or "null"
            mask = Mask(
                table=TableName.parse(table),
                column=column,
                rule=kind,
                expression=expression,
                path=self.path,
                line=self.lines.get(key),
            )
            if (mask.table, column) in masks:
                self.fail(key, f"{mask.table}.{column} has a rule already", "leave one of them out")
            masks[mask.table, column] = mask
        return RehearsalSpec(rows=raw.rows, mask=tuple(masks.values()))

    def metrics(self, raw: MetricsFile, traffic: Traffic) -> MetricsSpec:
        success = self.bound("metrics.success_rate", raw.success_rate, {"%"}, at_least=True)
        latency = self.bound("metrics.latency_p99", raw.latency_p99, {"ms", "s"}, at_least=False)
        window = self.seconds("metrics.window", raw.window) if raw.window else traffic.soak
        if raw.min_requests < 1:
            self.fail("metrics.min_requests", "no request at all proves nothing", "say `metrics: none` for no metrics")
        if raw.smi and (raw.prometheus or raw.queries):
            self.fail("metrics.smi", "figures come from one place", "leave out `prometheus` and `queries`, or `smi`")
        if raw.prometheus and not _HTTP.fullmatch(raw.prometheus):
            self.fail("metrics.prometheus", f"{raw.prometheus!r} is no address", "write http://HOST:PORT")
        return MetricsSpec(
            success_rate=success,
            latency_p99=latency,
            window=window,
            min_requests=raw.min_requests,
            prometheus=raw.prometheus,
            queries=raw.queries or _QUERIES.get(traffic.router, "linkerd"),
            smi=raw.smi,
        )

    def bound(self, key: str, text: str, units: set[str], *, at_least: bool) -> Bound:
        match = _BOUND.fullmatch(text.strip())
        sign = ">=" if at_least else "<="
        if not match or match[3] not in units or (match[1] == ">=") != at_least:
            self.fail(key, f"{text!r} is no bound here", f"write `{sign} NUMBER` with {' or '.join(sorted(units))}")
        factor = {"%": 0.01, "ms": 1.0, "s": 1000.0}[match[3]]
        return Bound(at_least, float(match[2]) * factor, text)

    def seconds(self, key: str, text: str) -> float:
        match = _DURATION.fullmatch(text.strip())
        if not match:
            self.fail(key, f"{text!r} is no duration", "write 500ms, 30s, 2m or 1h")
        return float(match[1]) * _SECONDS[match[2]]

    def fail(self, key: str, message: str, hint: str) -> NoReturn:
        keys = key.split(".")
        line = next((self.lines[p] for n in range(len(keys), 0, -1) if (p := ".".join(keys[:n])) in self.lines), None)
        raise InvalidFile(f"`{key}`: {message}", path=self.path, line=line, hint=hint)
