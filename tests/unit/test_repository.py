"""What must hold for the repository as a whole, whichever part of it is being changed."""

import ast
import hashlib
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "parallelchange"
COMPOSE = ROOT / "docker-compose.yml"
LARGEST = 500_000
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def modules() -> list[str]:
    """Every module of the package by its dotted name; `__main__` is left out because importing it runs it."""
    names = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "_data" not in parts and parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names)


def source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def public_definitions(text: str) -> set[str]:
    """The functions and classes that a module defines at its top level for others."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = (node.name for node in ast.parse(text).body if isinstance(node, kinds))
    return {name for name in names if not name.startswith("_")}


def published(compose: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each published port of a compose file as service and host address; empty where none is named."""
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            if isinstance(port, dict):
                yield name, port.get("host_ip", "")
            else:
                yield name, "127.0.0.1" if str(port).startswith("127.0.0.1:") else ""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("name", modules())
def test_all_names_exist(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    missing = [each for each in exported if not hasattr(module, each)]
    assert missing == [], f"{name}.__all__ lists what the module does not have"
    assert len(exported) == len(set(exported)), f"{name}.__all__ lists a name twice"


# A verb is reached through the command line, not imported, so its module exports nothing.
@pytest.mark.parametrize("name", [each for each in modules() if not each.startswith("parallelchange.cli.")])
def test_public_definitions_are_exported(name: str) -> None:
    exported = set(getattr(importlib.import_module(name), "__all__", []))
    hidden = public_definitions(source(name).read_text(encoding="utf-8")) - exported
    assert hidden == set(), f"add these to {name}.__all__, or let their names begin with an underscore"


def test_every_module_is_looked_at() -> None:
    assert {"parallelchange.errors", "parallelchange.model", "parallelchange.ports"} <= set(modules())
    assert "Verdict" in public_definitions(source("parallelchange.model").read_text(encoding="utf-8"))


def test_public_definitions_leaves_out_private_imported_and_nested_names() -> None:
    text = "from a import b\nclass C:\n    def d(self): ...\ndef _e(): ...\nasync def f(): ...\ng = 1\n"
    assert public_definitions(text) == {"C", "f"}


def test_compose_file_is_valid() -> None:
    done = run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE))
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_ports_are_bound_to_loopback() -> None:
    compose = YAML(typ="safe").load(COMPOSE)
    ports = list(published(compose))
    assert {service for service, _ in ports} == set(compose["services"]), "each service is there to be reached"
    assert [service for service, address in ports if address != "127.0.0.1"] == []
    assert [name for name, service in compose["services"].items() if service.get("network_mode") == "host"] == []


@pytest.mark.parametrize("port", ["5432:5432", 5432, "0.0.0.0:5432:5432", {"target": 5432, "published": "5432"}])
def test_an_open_port_is_told_from_a_bound_one(port: object) -> None:
    assert list(published({"services": {"db": {"ports": [port]}}})) == [("db", "")]


def test_no_file_is_too_large() -> None:
    """A clone should stay small; recorded statements may be as long as the app's tests make them."""
    # A checkout may belong to another user than the one that tests it, as in a container.
    done = run("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert done.returncode == 0, done.stderr
    paths = [Path(name) for name in done.stdout.split("\0") if name]
    assert Path("pyproject.toml") in paths
    sizes = {path: (ROOT / path).stat().st_size for path in paths if (ROOT / path).is_file()}
    own = {path: size for path, size in sizes.items() if "recorded" not in path.parts}
    large = {str(path): size for path, size in own.items() if size > LARGEST}
    assert large == {}, f"files of more than {LARGEST} bytes"


def test_license_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert hashlib.sha256(text.encode()).hexdigest() == APACHE_2, "LICENSE is not Apache-2.0 word for word"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    assert project["license-files"] == ["LICENSE"]
