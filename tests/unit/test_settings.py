"""Settings: whose signatures are asked for must not be lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallelchange.cli.settings import load_settings


@pytest.mark.parametrize(
    ("file", "env", "keys"),
    [
        ("", None, ()),
        ("evidence_keys = 'a.pub  b.pub'", None, ("a.pub", "b.pub")),
        ("evidence_keys = 'a.pub'", "c.pub", ("c.pub",)),
        ("evidence_keys = 'a.pub'", "", ("a.pub",)),
        ("evidence_keys = 'a.pub'", " \t", ("a.pub",)),
        ("evidence_keys = ''", "/elsewhere/c.pub", ("/elsewhere/c.pub",)),
    ],
)
def test_evidence_keys_are_files_beside_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, env: str | None, keys: tuple[str, ...]
) -> None:
    (tmp_path / "parallelchange.toml").write_text(file)
    monkeypatch.delenv("PARALLELCHANGE_EVIDENCE_KEYS", raising=False)
    if env is not None:
        monkeypatch.setenv("PARALLELCHANGE_EVIDENCE_KEYS", env)
    (tmp_path / "changes").mkdir()
    assert load_settings(tmp_path / "changes").evidence_keys == tuple(tmp_path / key for key in keys)
