"""Only the version itself can say that it works."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from parallelchange.adapters.prober import RealProber
from parallelchange.change import Probe, Version
from parallelchange.gates.probe import judge
from parallelchange.model import Verdict


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/login":
            self.send_response(302)
            self.send_header("Location", "/200")
        else:
            self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def verdict(probe: Probe, folder: Path, address: str | None) -> Verdict:
    version = Version(name="v2", application_name=None, statements=None, probe=probe, build=None)
    return judge(RealProber("postgresql://127.0.0.1:1/none", folder).probe(version, address)).verdict


@pytest.mark.parametrize(
    ("path", "expected"),
    [("200", "pass"), ("204", "fail"), ("404", "fail"), ("503", "fail"), ("login", "fail")],
)
def test_only_200_of_the_copy_itself_is_a_pass(path: str, expected: str, address: str, tmp_path: Path) -> None:
    assert verdict(Probe(url="http://{host}/" + path), tmp_path, address) == expected


def test_a_proxy_is_not_asked(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert verdict(Probe(url="http://{host}/200"), tmp_path, address) is Verdict.PASS


@pytest.mark.parametrize(
    ("url", "copy"), [("http://{host}/200", None), ("http://127.0.0.1:1/", None), ("file:///etc/hostname", None)]
)
def test_what_cannot_be_asked_is_unknown(url: str, copy: str | None, tmp_path: Path) -> None:
    assert verdict(Probe(url=url), tmp_path, copy) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("code", "expected"), [("pass", "pass"), ("raise SystemExit(3)", "fail"), ("import time; time.sleep(9)", "fail")]
)
def test_a_command_passes_by_its_exit_code(code: str, expected: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -c '{code}'"
    assert verdict(Probe(command=command, timeout=1.0), tmp_path, None) == expected


def test_what_a_command_sends_is_its_versions(tmp_path: Path) -> None:
    code = 'import os; raise SystemExit(os.environ["PGAPPNAME"] != "shop-v2")'
    probe = Probe(command=f"{sys.executable} -c '{code}'")
    version = Version(name="v2", application_name="shop-v2", statements=None, probe=probe, build=None)
    assert RealProber("postgresql://127.0.0.1:1/none", tmp_path).probe(version, None).ok is True


def test_a_command_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    assert verdict(Probe(command="no-such-program-here --x"), tmp_path, None) is Verdict.UNKNOWN
