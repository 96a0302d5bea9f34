"""Evidence as text: what is written reads back, and nothing else is read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.evidence import (
    SKEW,
    EvidenceFile,
    Signature,
    about,
    body,
    canonical,
    from_body,
    read_file,
    refusal,
    supersedes,
    write_file,
)
from parallelchange.gates import ON_COPY
from parallelchange.model import Evidence, EvidenceKey, Finding, GateResult, Place, Severity, State, Verdict

CHANGE, PLAN, NOW = "a-change", "f" * 64, 1_764_000_000.0
STATES = (State.BASE, State.EXPANDED, State.CONTRACTED)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
findings = st.builds(Finding, texts, st.sampled_from([Severity.WARNING, Severity.INFO]), texts, texts, texts)
times = st.integers(0, 2**52).map(lambda micros: micros / 1e6)


@st.composite
def items(draw: Any) -> Evidence:
    """What a rehearsal may measure."""
    gate = draw(st.sampled_from(ON_COPY))
    version = "*" if gate == "rehearsal" else draw(st.sampled_from(["v1", "v2"]))
    parts = {part: draw(texts) for part in ("build", "fingerprint", "statements", "spec")}
    key = EvidenceKey(CHANGE, version, gate, plan=PLAN, place=Place.COPY, **parts)
    measured = draw(st.dictionaries(texts, plain, max_size=3))
    result = GateResult(
        gate, draw(st.sampled_from(Verdict)), tuple(draw(st.lists(findings, max_size=2))),
        None if version == "*" else version, measured,
    )  # fmt: skip
    return Evidence(key, result, draw(times), draw(texts.filter(bool)), draw(st.sampled_from(STATES)))


signatures = st.none() | st.builds(Signature, texts, texts)
files = st.builds(
    EvidenceFile,
    st.just(CHANGE), st.just(PLAN), texts, times,
    st.lists(items(), min_size=1, max_size=4, unique_by=about).map(tuple), signatures,
)  # fmt: skip


@given(items())
def test_a_row_reads_back_and_begins_with_what_it_is_looked_up_by(item: Evidence) -> None:
    text = body(item)
    assert text.isascii()
    assert text.startswith(f'{{"about":{about(item)},"at":{round(item.measured_at * 1e6)},')
    assert from_body(text) == item
    assert body(from_body(text)) == text


def test_a_row_may_hold_what_no_file_may() -> None:
    """Whatever was written can be read, or a ledger would be taken for one that somebody changed."""
    odd = replace(one(), result=replace(one().result, findings=(Finding("a", Severity.INFO, "\ud800\x00"),)))
    assert from_body(body(odd)) == odd
    unknown = replace(odd, key=replace(odd.key, gate="of-another-release"), result=replace(odd.result, gate="x"))
    assert from_body(body(unknown)).key.gate == "of-another-release"


@given(files)
def test_a_file_reads_back(file: EvidenceFile) -> None:
    assert read_file(write_file(file)) == file


def one(gate: str = "execute", version: str = "v1", **changes: Any) -> Evidence:
    key = EvidenceKey(CHANGE, version, gate, "b", "f", "s", PLAN, place=Place.COPY)
    found = Evidence(key, GateResult(gate, Verdict.PASS, (), version), NOW, "run-1", State.EXPANDED)
    return replace(found, **changes)


def whole(*found: Evidence) -> EvidenceFile:
    return EvidenceFile(CHANGE, PLAN, "a test", NOW, found or (one(), one("prepare"), one("shape", "v2")))


@given(st.data())
def test_one_byte_more_less_or_other_is_refused_or_says_the_same(data: st.DataObject) -> None:
    good = write_file(whole())
    at = data.draw(st.integers(0, len(good) - 1))
    new = data.draw(st.sampled_from(["", " ", "0", "9", '"', "}", ",", "é", "\x00"]) | st.characters(codec="ascii"))
    text = good[:at] + new + good[at + data.draw(st.integers(0, 1)) :]
    try:
        read = read_file(text)
    except ValueError:
        return
    assert read == whole(), "white space between values is no content"


@given(plain | st.fixed_dictionaries({
    "format": st.just(1) | plain, "change": plain, "plan": plain, "written": plain, "evidence": plain, "sha256": plain,
}))  # fmt: skip
def test_any_json_is_refused_without_a_crash(value: Any) -> None:
    with pytest.raises(ValueError):
        read_file(json.dumps(value))


@given(st.text(max_size=60))
def test_any_text_is_refused_without_a_crash(text: str) -> None:
    with pytest.raises(ValueError):
        read_file(text)


def document(item: dict[str, Any] | None = None, **head: Any) -> str:
    """A file with a right hash whose first item, or head, says something else; a value of `...` drops a key."""
    raw = json.loads(write_file(whole()))
    for changes, target in ((item or {}, raw["evidence"][0]), (head, raw)):
        for key, value in changes.items():
            target[key] = value
            if value is ...:
                del target[key]
    signed = {key: value for key, value in raw.items() if key not in ("sha256", "signature")}
    import hashlib

    try:
        honest = hashlib.sha256(canonical(signed).encode()).hexdigest()
    except (ValueError, UnicodeError):
        honest = ""
    if "sha256" not in head:
        raw["sha256"] = honest
    return json.dumps(raw)


FINDING = {"id": "execute.failed", "severity": "error", "message": "m", "where": "", "remedy": ""}
DEEP: Any = 1
for _ in range(30):
    DEEP = [DEEP]


def test_the_document_as_it_is_made_here_is_a_good_one() -> None:
    assert read_file(document()) == whole()
    assert read_file(document({"findings": [FINDING], "verdict": "fail"})).items[0].result.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (document(format=2), "is of format '2'"),
        (document(format=True), "is of format"),
        (document(format=1.0), "is of format"),
        (document(more=1), "unknown key 'more'"),
        (document(plan=...), "lacks 'plan'"),
        (document(evidence={}), "no list"),
        (document(evidence=[]), "holds no evidence"),
        (document(evidence=[1]), "an item is no object"),
        (document(written={"by": "x"}), "lacks 'at'"),
        (document(written={"by": "x", "at": "now"}), "no time"),
        (document(written={"by": "x", "at": -1}), "no time"),
        (document(sha256="0" * 64), "was changed"),
        (document(sha256=1), "no text"),
        (document(signature={"key": "k"}), "lacks 'ed25519'"),
        (document(signature=None), "no object"),
        (document(change="another"), "of another change"),
        (document(plan="another"), "of another change or plan"),
        (document({"about": ["execute", "v1", "expanded", "live"]}), "speaks of that one only"),
        (document({"about": ["execute", "v1", "expanded", "moon"]}), "Place"),
        (document({"about": ["execute", "v1", "expanded"]}), "gate, version, state and place"),
        (document({"about": ["execute", "*", "expanded", "copy"]}), "nothing that a rehearsal measures"),
        (document({"about": ["rehearsal", "v1", "expanded", "copy"]}), "nothing that a rehearsal measures"),
        (document({"about": ["laws", "*", "expanded", "copy"]}), "nothing that a rehearsal measures"),
        (document({"about": ["no-gate", "v1", "expanded", "copy"]}), "nothing that a rehearsal measures"),
        (document({"about": ["execute", "v1", "partial", "copy"]}), "nothing that a rehearsal measures"),
        (document({"about": ["execute", "v1", "no-state", "copy"]}), "State"),
        (document({"about": ["prepare", "v1", "expanded", "copy"]}), "twice of prepare of v1"),
        (document({"incarnation": "1"}), "nothing that a rehearsal measures"),
        (document({"source": "imported"}), "nothing that a rehearsal measures"),
        (document({"run": ""}), "nothing that a rehearsal measures"),
        (document({"at": 1.5}), "no time"),
        (document({"at": True}), "no time"),
        (document({"at": -1}), "no time"),
        (document({"at": 10**300}), "no time"),
        (document({"verdict": "passed"}), "Verdict"),
        (document({"verdict": None}), "no text"),
        (document({"findings": [FINDING]}), "says pass, and yet 'execute.failed' is an error"),
        (document({"findings": [{**FINDING, "severity": "fatal"}]}), "Severity"),
        (document({"findings": [{**FINDING, "more": ""}]}), "unknown key"),
        (document({"findings": ["x"]}), "no object"),
        (document({"findings": {}}), "not as they are written"),
        (document({"measured": []}), "not as they are written"),
        (document({"measured": {"deep": DEEP}}), "nested too deep"),
        (document({"build": None}), "no text"),
        (document({"build": ...}), "lacks 'build'"),
        (document({"build": "\ud800"}), "surrogates"),
        (document({"measured": {"\udfff": 1}}), "surrogates"),
        (document({"measured": {"x": float("inf")}}), "Infinity"),
        (document({"measured": {"x": float("nan")}}), "NaN"),
        (document({"measured": {"x": 123.5}}).replace("123.5", "1e999"), "not JSON compliant"),
        (document({"measured": {"x": 123.5}}).replace("123.5", "9" * 5000), "digits"),
        (document().replace('"run":', '"run": "a", "run":', 1), "has the key 'run' twice"),
        ("\ufeff" + document(), "no JSON"),
        ("[" * 100_000, "nested too deep"),
    ],
)  # fmt: skip
def test_what_is_not_of_the_format_is_refused_and_named(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_file(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("file", "plan", "versions", "now", "says"),
    [
        (whole(), PLAN, ("v1", "v2"), NOW, ""),
        (whole(), PLAN, ("v1", "v2"), NOW + 60, ""),
        (whole(), PLAN, ("v1", "v2"), NOW - SKEW, ""),
        (whole(), "e" * 64, ("v1", "v2"), NOW, "is of another plan (ffffffffffff…, and eeeeeeeeeeee…"),
        (whole(), PLAN, ("v1", "v3"), NOW, "'v2', which is no version"),
        (whole(), PLAN, ("v1", "v2"), NOW - SKEW - 1, "is from the future, by 6 s"),
        (whole(), PLAN, ("v1", "v2"), NOW + 61, "was measured 61 s ago, and counts for 60 s"),
    ],
)
def test_what_cannot_count_is_refused_with_what_to_do(
    file: EvidenceFile, plan: str, versions: tuple[str, ...], now: float, says: str
) -> None:
    why, remedy = refusal(file, plan, versions, now, 60.0)
    assert says in why
    assert bool(remedy) is bool(says) is bool(why)


@given(times, times, st.sampled_from(Verdict), st.sampled_from(Verdict))
def test_only_what_is_newer_supersedes(first: float, second: float, known: Verdict, new: Verdict) -> None:
    of = [one(measured_at=at, result=replace(one().result, verdict=v)) for at, v in ((first, known), (second, new))]
    if supersedes(of[1], of[0]):
        assert second > first
        assert known is Verdict.PASS or second > first + SKEW
    assert supersedes(of[1], None)
