"""The values: shares of traffic, verdicts and digests."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.model import (
    FULL,
    Lock,
    TableName,
    Verdict,
    combine,
    digest,
    format_weight,
    parse_weight,
)

weights = st.integers(0, FULL)
verdicts = st.lists(st.sampled_from(Verdict), max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@given(weights)
def test_a_weight_reads_back_as_it_was_written(weight: int) -> None:
    assert parse_weight(format_weight(weight)) == weight


@given(weights)
def test_a_share_and_a_percentage_are_the_same_weight(weight: int) -> None:
    share = Decimal(weight) / FULL
    assert parse_weight(str(share)) == parse_weight(f"{share * 100}%") == parse_weight(f" {share} ") == weight


@pytest.mark.parametrize(
    "text",
    ["", "%", "x", "5 %%", "-1%", "101%", "1.001", "2", "0.05%", "12.55%", "nan", "inf", "-inf%", "snan", "1e9999"],
)
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"share|outside|finer"):
        parse_weight(text)


@given(st.text(max_size=12) | st.floats())
def test_reading_a_weight_gives_a_weight_or_a_value_error(text: str | float) -> None:
    try:
        weight = parse_weight(text)
    except ValueError:
        return
    assert 0 <= weight <= FULL


def test_of_nothing_nothing_is_known() -> None:
    assert combine([]) is Verdict.UNKNOWN


@given(verdicts)
def test_only_passes_make_a_pass_and_any_fail_is_a_fail(found: list[Verdict]) -> None:
    joined = combine(found)
    assert (joined is Verdict.PASS) == (bool(found) and set(found) == {Verdict.PASS})
    assert (joined is Verdict.FAIL) == (Verdict.FAIL in found)


@given(verdicts.filter(bool), verdicts.filter(bool))
def test_verdicts_join_in_any_order_and_grouping(left: list[Verdict], right: list[Verdict]) -> None:
    assert combine(left + right) == combine(right + left) == combine([combine(left), combine(right)])
    assert combine(left) == combine(left * 2)


@given(st.dictionaries(st.text(max_size=3), values, max_size=4))
def test_a_digest_does_not_know_the_order_of_keys(value: dict[str, Any]) -> None:
    backwards = dict(reversed(value.items()))
    assert digest(value) == digest(backwards)


def test_a_digest_knows_the_order_of_a_list_and_each_value() -> None:
    orders = {digest(list(order)) for order in permutations(("a", "b", "c"))}
    assert len(orders) == 6
    assert digest({"a": None}) != digest({}) != digest([])
    assert digest("1") != digest(1)


@given(values, values)
def test_equal_digests_are_of_equal_values(left: Any, right: Any) -> None:
    # 1 == True in Python but not in JSON, so the values are compared as they are printed.
    assert (digest(left) == digest(right)) == (_canonical(left) == _canonical(right))


def _canonical(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{k!r}:{_canonical(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return repr(value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("customers", TableName("public", "customers")),
        ("shop.customers", TableName("shop", "customers")),
        ("User Table", TableName("public", "User Table")),
    ],
)
def test_a_table_without_schema_is_in_public(text: str, name: TableName) -> None:
    assert TableName.parse(text) == name


def test_locks_are_ordered_and_named_as_postgresql_names_them() -> None:
    assert all(weaker < stronger for weaker, stronger in pairwise(Lock))
    assert Lock.SHARE_UPDATE_EXCLUSIVE.mode == "ShareUpdateExclusiveLock"
    assert Lock.ACCESS_EXCLUSIVE.title == "ACCESS EXCLUSIVE"
    assert Lock.NONE.title == "-"
