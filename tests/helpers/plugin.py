"""Runs of the pytest plugin on suites of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "02_test_in_your_repo"
# By its module: where the package was installed with its entry point, that would be the plugin a second time.
PLUGIN = ("-p", "no:parallelchange", "-p", "parallelchange.testing.plugin", "-p", "no:cacheprovider")


def copy_example(pytester: pytest.Pytester, *, tests: bool = False) -> Path:
    """The example's repository where `pytester` runs, with its tests or for others."""
    left_out = ("__pycache__", *(() if tests else ("tests",)))
    shutil.copytree(EXAMPLE, pytester.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*left_out))
    return pytester.path


def run(pytester: pytest.Pytester, *arguments: str, timeout: float = 240) -> pytest.RunResult:
    """Run pytest with the plugin, in a process of its own."""
    return pytester.runpytest_subprocess(*PLUGIN, *arguments, timeout=timeout)


def run_here(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest with the plugin in this process, which is faster; modules it imports are forgotten afterwards."""
    return pytester.runpytest_inprocess(*PLUGIN, *arguments)
