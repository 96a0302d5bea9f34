"""What the team wants to be sure of before it ships the change."""

import subprocess
import sys

import pytest
from library import v1, v2

from parallelchange.testing.databases import ChangeDatabases


def test_both_versions_read_what_the_other_writes(parallelchange: ChangeDatabases) -> None:
    db = parallelchange.expanded()
    with db.connect("old", autocommit=True) as old, db.connect("new", autocommit=True) as new:
        first, second = v1.join(old, "111"), v2.join(new, "222")
        assert v2.find(new, first) == "111"
        assert v1.find(old, second) == "222"
        v1.correct(old, second, "333")
        assert v2.find(new, second) == "333"
    db.check_laws()


@pytest.mark.parametrize(
    ("state", "version"), [("base", "old"), ("expanded", "old"), ("expanded", "new"), ("contracted", "new")]
)
def test_the_apps_own_tests_pass(parallelchange: ChangeDatabases, state: str, version: str) -> None:
    """In a process of its own, as an app in any language would run them."""
    db = getattr(parallelchange, state)()
    module = {"old": "test_v1.py", "new": "test_v2.py"}[version]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/app/{module}"]
    done = subprocess.run(command, env=db.env(version), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", ["old", "new"])
def test_recorded_statements_work_on_the_expanded_schema(parallelchange: ChangeDatabases, version: str) -> None:
    parallelchange.expanded().check_statements(version)
