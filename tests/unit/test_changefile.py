"""The change file: read into values, or refused with its line and a hint."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from parallelchange.change import RehearsalSpec
from parallelchange.changefile import Bound, Change, Probe, json_schema, load_change
from parallelchange.errors import InvalidFile
from parallelchange.operations import OPERATIONS, SplitColumn
from parallelchange.operations.columns import NewColumn
from parallelchange.sessions import Client

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/01_split_customer_name/changes/split-customer-name.yaml"
SCHEMA = ROOT / "parallelchange/change.schema.json"

VALID = """\
change: split-name
versions:
  old: {name: v1, application_name: app-v1, statements: v1.json, probe: {url: "http://{host}/ok", timeout: 5s}}
  new:
    name: v2
    application_name: app-v2
    probe: none
database:
  - split_column:
      table: customers
      column: name
      into:
        first_name: text
        last_name: {type: text, not_null: true, default: "''"}
      up: {first_name: "a", last_name: "b"}
      down: "c"
  - set_not_null: {table: customers, column: phone, up: "''"}
traffic:
  service: shop
  stages: [5%, 12.5%, 0.5, 100%]
  soak: 2m
  drain: 500ms
metrics:
  success_rate: ">= 99.5%"
  latency_p99: "<= 1.5s"
backfill: {rows_per_second: 100}
evidence: {max_age: 1h}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "v1.json").write_text("{}")
    path = folder / "change.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def line_of(text: str, part: str) -> int:
    """The line a part of a text is first on."""
    return text[: text.index(part)].count("\n") + 1


def refused(folder: Path, text: str) -> InvalidFile:
    path = write(folder, text)
    with pytest.raises(InvalidFile) as caught:
        load_change(path)
    assert str(path) in str(caught.value)
    return caught.value


def test_a_valid_file_becomes_values(tmp_path: Path) -> None:
    change = load_change(write(tmp_path, VALID))
    assert change.name == "split-name"
    assert change.old.statements == tmp_path / "v1.json"
    assert change.old.probe == Probe(url="http://{host}/ok", timeout=5.0)
    assert change.new.probe is None
    split = change.database[0]
    assert isinstance(split, SplitColumn)
    assert split.into == {"first_name": "text", "last_name": NewColumn("text", not_null=True, default="''")}
    assert change.traffic.stages == (50, 125, 500, 1000)
    assert (change.traffic.soak, change.traffic.drain, change.traffic.drain_timeout) == (120.0, 0.5, 300.0)
    assert change.metrics is not None
    assert change.metrics.success_rate == Bound(at_least=True, value=0.995, text=">= 99.5%")
    assert change.metrics.latency_p99 == Bound(at_least=False, value=1500.0, text="<= 1.5s")
    assert change.metrics.window == 120.0
    assert change.rows_per_second == 100
    assert change.max_age == 3600.0


REHEARSAL = (
    VALID
    + """\
rehearsal:
  rows: 500
  mask:
    customers.email: hash
    shop.customers.phone: null
    customers.fax: "null"
    customers.note:
      sql: "left(note, 3)"
"""
)


def test_the_rules_of_the_rehearsal_copy(tmp_path: Path) -> None:
    rehearsal = load_change(write(tmp_path, REHEARSAL)).rehearsal
    assert rehearsal.rows == 500
    assert [(str(m.table), m.column, m.rule, m.expression) for m in rehearsal.mask] == [
        ("public.customers", "email", "hash", None),
        ("shop.customers", "phone", "null", None),
        ("public.customers", "fax", "null", None),
        ("public.customers", "note", "sql", "left(note, 3)"),
    ]
    assert [m.line for m in rehearsal.mask][:2] == [
        line_of(REHEARSAL, "customers.email"),
        line_of(REHEARSAL, "shop.customers"),
    ]
    assert load_change(write(tmp_path, VALID)).rehearsal == RehearsalSpec(rows=20_000, mask=())


@pytest.mark.parametrize(
    ("old", "new", "at", "says"),
    [
        ("rows: 500", "rows: 0", "rows: 0", "at least 1"),
        ("rows: 500", "rows: many", "rows: many", "`rehearsal.rows`"),
        ("rows: 500", "row: 500", "row: 500", "unknown key `row`"),
        ("customers.email: hash", "customers.email: scramble", "customers.email", "`rehearsal.mask.customers.email`"),
        ("customers.email: hash", "customers.email: {sq: a}", "customers.email", "sq"),
        ("customers.email: hash", "customers.email: {sql: ' '}", "customers.email", "empty"),
        ("customers.email: hash", "email: hash", "    email", "names no column"),
        ("customers.email: hash", "a.b.c.d: hash", "    a.b", "names no column"),
        ("customers.email: hash", ".email: hash", "    .email", "names no column"),
        ("customers.email: hash", "customers.: hash", "    customers.:", "names no column"),
        ("customers.fax", "public.customers.email", "public.customers.email", "has a rule already"),
    ],
)
def test_a_rule_of_the_rehearsal_copy_that_cannot_be(tmp_path: Path, old: str, new: str, at: str, says: str) -> None:
    text = REHEARSAL.replace(old, new)
    error = refused(tmp_path, text)
    assert says in error.message
    assert error.line == line_of(text, at)


def test_clients_by_name_role_and_network(tmp_path: Path) -> None:
    told = 'clients: [psql, "pga*", {role: metrics}, {address: 10.0.0.0/8, application_name: "x?"}]\n'
    change = load_change(write(tmp_path, VALID + told))
    assert change.clients == (
        Client("psql"), Client("pga*"), Client(role="metrics"), Client("x?", address="10.0.0.0/8"),
    )  # fmt: skip
    assert load_change(write(tmp_path, VALID)).clients == ()


def test_a_role_that_is_a_versions_lets_nobody_in(tmp_path: Path) -> None:
    text = VALID.replace("    name: v2\n", "    name: v2\n    role: shop\n") + "clients: [{role: shop}]\n"
    with pytest.raises(InvalidFile, match="shop is the role of v2"):
        load_change(write(tmp_path, text))


def test_the_line_of_a_key_or_of_the_nearest_above_it(tmp_path: Path) -> None:
    change = load_change(write(tmp_path, VALID))
    assert change.line_of("database", 0, "split_column", "down") == line_of(VALID, "down:")
    assert change.line_of("database", 1, "set_not_null", "nothing") == line_of(VALID, "set_not_null:")
    assert change.line_of("versions", "new", "name") == line_of(VALID, "name: v2")
    assert change.line_of("nothing") is None


@pytest.mark.parametrize(
    ("old", "new", "at", "says", "hint"),
    [
        # Keys and types.
        ("    name: v2\n", "    nmae: v2\n", "nmae", "unknown key `nmae`", "did you mean `name`?"),
        ("  soak: 2m", "  soaks: 2m", "soaks", "unknown key `soaks`", "did you mean `soak`?"),
        ("      down:", "      zzz: 1\n      down:", "zzz", "unknown key `zzz`", "JSON Schema"),
        ("  service: shop\n", "", "traffic:", "`traffic.service` is missing", None),
        ('      down: "c"\n', "", "split_column:", "`database.0.split_column.down` is missing", None),
        ("    name: v2\n", "    name: [v2]\n", "[v2]", "`versions.new.name`", None),
        ("not_null: true", "not_null: maybe", "maybe", "not_null", None),
        ("rows_per_second: 100", "rows_per_second: many", "many", "`backfill.rows_per_second`", None),
        ("max_age: 1h", "max_agee: 1h", "max_agee", "unknown key `max_agee`", "did you mean `max_age`?"),
        # References between keys.
        ("change: split-name", "change: Split Name", "change:", "no name for a change", "a-z"),
        ("change: split-name", "change: " + "x" * 41, "change:", "no name for a change", "40"),
        ("    name: v2\n", "    name: v1\n", "    name: v1", "both versions are called v1", "its own name"),
        ("app-v2", "app-v1", "    application_name:", "same application_name", "whose session"),
        ("    probe: none\n", "", "  new:", "no probe tells whether v2 works", "`probe: none`"),
        ("probe: none", "probe: {}", "probe: {}", "either a url or a command", "one of them"),
        ("probe: none", "probe: {url: a, command: b}", "url: a", "either a url or a command", "one of them"),
        ("rows_per_second: 100", "rows_per_second: 0", "rows_per_second", "at least 1", "leave it out"),
        ("app-v2", "parallelchange", "    application_name:", "the toolkit's own", "give it another"),
        # Who else may be connected.
        *(
            ("rows_per_second: 100}", "rows_per_second: 100}\nclients:\n  - " + entry, "  - " + entry, says, hint)
            for entry, says, hint in (
                ('"*"', "would let in whoever comes", "by application_name"),
                ('""', "would let in whoever comes", "by application_name"),
                ('"app-*"', "also the application_name of v1", "by application_name"),
                ("app-v2", "also the application_name of v2", "by application_name"),
                ("{}", "names nothing", "by application_name"),
                ("{address: 10.0.0.1/8}", "is no network", "10.0.0.0/8"),
                ('{address: "::/0"}', "would let in whoever comes", "by application_name"),
                ("{rolle: metrics}", "unknown key `rolle`", "did you mean `role`?"),
                ("7", "`clients.0", None),
            )
        ),
        # Shares, durations, bounds.
        ("5%, 12.5%", "5%, 12.55%", "stages:", "finer than a thousandth", "12.5%"),
        ("5%, 12.5%", "5%, much", "stages:", "no share of traffic", "12.5%"),
        ("5%, 12.5%", "12.5%, 5%", "stages:", "stages grow", "for example"),
        ("5%, 12.5%", "5%, 5%", "stages:", "stages grow", "for example"),
        ("5%, 12.5%", "0%, 12.5%", "stages:", "stages grow", "for example"),
        (", 100%]", "]", "stages:", "stages grow", "for example"),
        ("[5%, 12.5%, 0.5, 100%]", "[]", "stages:", "stages grow", "for example"),
        ("[5%, 12.5%,", "[5%,\n    x,", "    x,", "no share of traffic", "12.5%"),
        ("soak: 2m", "soak: 2 minutes", "soak:", "no duration", "2m"),
        ("soak: 2m", "soak: -2m", "soak:", "no duration", "2m"),
        ("timeout: 5s", "timeout: 5", "timeout:", "`versions.old.probe.timeout`", None),
        ("max_age: 1h", "max_age: forever", "max_age:", "no duration", "1h"),
        (">= 99.5%", "<= 99.5%", "success_rate:", "no bound here", ">="),
        (">= 99.5%", ">= 99.5ms", "success_rate:", "no bound here", "%"),
        ("<= 1.5s", ">= 1.5s", "latency_p99:", "no bound here", "<="),
        ("<= 1.5s", "<= 1.5%", "latency_p99:", "no bound here", "ms or s"),
        ("<= 1.5s", "fast", "latency_p99:", "no bound here", "<="),
        ('latency_p99: "<= 1.5s"', "min_requests: 0", "min_requests", "proves nothing", "`metrics: none`"),
        # Operations.
        ("  - set_not_null: {", "  - {}\n  - set_not_null: {", "- {}", "exactly one operation", "split_column"),
        ("  - set_not_null: {", "    set_not_null: {", "- split_column", "exactly one operation", "rename_column"),
        ("split_column", "splt_column", "splt_column", "unknown key `splt_column`", "did you mean `split_column`?"),
        # YAML.
        ("change: split-name", "change: a\nchange: b", "change: b", "duplicate key", None),
        ("  service: shop", "  service: [shop", "stages:", "is no YAML", None),
        ("  service: shop", "\tservice: shop", "service:", "is no YAML", None),
    ],
)
def test_what_is_wrong_is_refused_with_its_line_and_a_hint(
    tmp_path: Path, old: str, new: str, at: str, says: str, hint: str | None
) -> None:
    text = VALID.replace(old, new, 1)
    assert text != VALID
    error = refused(tmp_path, text)
    assert says in error.message
    assert error.line == line_of(text, at)
    if hint is not None:
        assert error.hint is not None
        assert hint in error.hint


def test_no_operation_at_all(tmp_path: Path) -> None:
    text = re.sub(r"database:\n.*traffic:", "database: []\ntraffic:", VALID, flags=re.DOTALL)
    error = refused(tmp_path, text)
    assert "there is no operation" in error.message
    assert error.line == line_of(text, "database:")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "---\n...\n", "null"])
def test_a_file_without_a_change_is_refused(tmp_path: Path, text: str) -> None:
    error = refused(tmp_path, text)
    assert error.line == 1
    assert error.hint is not None
    assert "change:" in error.hint


def test_a_file_that_is_not_there_a_folder_and_bytes_are_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"change: \xff\xfe")
    for path in (tmp_path / "none.yaml", tmp_path, latin):
        with pytest.raises(InvalidFile):
            load_change(path)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("change: &a [*a]", id="an alias of itself"),
        pytest.param("change: !!int x", id="a tag its value does not fit"),
        pytest.param("change: 2001-99-99", id="a date that is none"),
        pytest.param("change: !thing x", id="an unknown tag"),
        pytest.param("? [a, b]\n: c", id="a list for a key"),
        pytest.param("1: 2\nnull: 3\n2.5: 4", id="keys that are no words"),
        pytest.param("a: 1\n---\nb: 2", id="two documents"),
        pytest.param("change: " + "[" * 3000, id="deep nesting"),
        pytest.param("change: " + "1" * 5000, id="a number too long for Python"),
        pytest.param('change: "\\ud800"', id="half a character"),
        pytest.param("change: \0", id="NUL"),
        pytest.param("%YAML 1.1\n---\nchange: 1.e3", id="an older YAML"),
        pytest.param("change: !!set {a, b}", id="a set"),
        pytest.param("change: !!omap [a: b]", id="an ordered mapping"),
        pytest.param(VALID.replace("v1.json", "'" + "x" * 300 + "'"), id="a file name too long"),
        pytest.param(VALID.replace("v1.json", '"a\\0b"'), id="NUL in a file name"),
        pytest.param("a: &a [x]\nb: *a\n<<: *a", id="a merge of no mapping"),
    ],
)
def test_strange_yaml_is_refused_and_nothing_else(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text)


def test_merge_keys_are_read_as_yaml_means_them(tmp_path: Path) -> None:
    text = VALID.replace("  new:\n", "  new:\n    <<: &common {build: abc}\n")
    assert load_change(write(tmp_path, text)).new.build == "abc"


@pytest.mark.parametrize("name", ["x" * 64, "café"])
def test_an_application_name_postgresql_would_cut_or_rewrite_is_refused(tmp_path: Path, name: str) -> None:
    """Its sessions would never be found under that name: `drained` would pass while they work."""
    error = refused(tmp_path, VALID.replace("app-v1", name))
    assert error.line == line_of(VALID, "application_name:")


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def _places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [at, *(place for key, value in inner for place in _places(value, (*at, key)))]


DOCUMENT: dict[str, Any] = json.loads(json.dumps(YAML(typ="safe").load(VALID)))
PLACES = [place for place in _places(DOCUMENT) if place]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """The valid document with some places of it replaced, dropped or renamed."""
    document = json.loads(json.dumps(DOCUMENT))
    for *above, last in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        node = document
        try:
            for key in above:
                node = node[key]
            match draw(st.sampled_from(("set", "drop", "rename"))):
                case "set":
                    node[last] = draw(yaml_values)
                case "drop":
                    del node[last]
                case _:
                    node[draw(st.text(max_size=6))] = node.pop(last)
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier mutation took the place away
    return document


def _loads_or_is_refused(folder: Path, text: str) -> None:
    path = write(folder, text)
    with suppress(InvalidFile):
        assert isinstance(load_change(path), Change)


quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(document=mutated() | yaml_values)
@example(document={**DOCUMENT, "versions": {"old": {"name": ""}, "new": {"name": None}}})
def test_any_document_is_read_or_refused(tmp_path: Path, document: Any) -> None:
    _loads_or_is_refused(tmp_path, json.dumps(document, default=str))


@quick
@given(
    at=st.integers(0, len(VALID)), cut=st.integers(0, 12), put=st.text("\0\t\n :-?[]{}#&*!|>'\"%@`,ax1.é", max_size=4)
)
def test_any_edit_of_a_file_is_read_or_refused(tmp_path: Path, at: int, cut: int, put: str) -> None:
    _loads_or_is_refused(tmp_path, VALID[:at] + put + VALID[at + cut :])


def test_the_published_schema_is_the_one_files_are_read_by() -> None:
    """Write it anew with `json.dumps(json_schema(), indent=1)` and a final newline."""
    assert SCHEMA.read_text(encoding="utf-8") == json.dumps(json_schema(), indent=1) + "\n"


def test_the_schema_knows_every_kind_of_operation_and_no_private_name() -> None:
    schema = json_schema()
    assert set(schema["$defs"]["Operation"]["properties"]) == set(OPERATIONS)
    assert not re.search(r'"_\w|\w+File\b', json.dumps(schema))


@pytest.mark.parametrize("path", [EXAMPLE], ids=lambda path: path.name)
def test_the_example_fits_the_schema(path: Path) -> None:
    document = json.loads(json.dumps(YAML(typ="safe").load(path.read_text(encoding="utf-8"))))
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.Draft202012Validator(json_schema()).validate(document)
    assert load_change(path).name == document["change"]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("traffic", "soaks"), "1s"),
        (("versions", "old", "nmae"), "x"),
        (("database", 0, "split_column", "down"), 1),
        (("traffic", "router"), "telepathy"),
    ],
)
def test_what_the_reader_refuses_the_schema_refuses(at: tuple[Any, ...], value: Any) -> None:
    document = json.loads(json.dumps(DOCUMENT))
    node = document
    for key in at[:-1]:
        node = node[key]
    jsonschema.Draft202012Validator(json_schema()).validate(document)
    node[at[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json_schema()).validate(document)
