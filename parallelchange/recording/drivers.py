"""What drivers and pools send by themselves, and what is about no table of the app. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from parallelchange.sqltext import Kind, Token, kind_of, opening, tokens

__all__ = ["not_the_apps"]

_VERBS = frozenset({"show", "discard", "deallocate"})
_QUESTIONS = frozenset({
    "select pg_catalog.version()", "select version()", "select current_schema()", "select current_schema",
    "select pg_is_in_recovery()",
})  # fmt: skip
_OTHER_DATABASES = frozenset({("create", "database"), ("drop", "database"), ("alter", "database")})
_SECOND_PHASE = frozenset({("commit", "prepared"), ("rollback", "prepared")})
_CATALOGS = frozenset(
    """
pg_am pg_attrdef pg_attribute pg_auth_members pg_authid pg_available_extensions pg_cast pg_catalog pg_class
pg_collation pg_constraint pg_database pg_depend pg_description pg_enum pg_extension pg_index pg_indexes pg_inherits
pg_language pg_namespace pg_opclass pg_operator pg_partitioned_table pg_policies pg_policy pg_proc pg_range pg_roles
pg_sequence pg_sequences pg_settings pg_tables pg_tablespace pg_timezone_names pg_trigger pg_type pg_user pg_views
information_schema
""".split()  # noqa: SIM905 - a list of words reads worse
)
_FUNCTIONS = frozenset({"unnest", "generate_series", "generate_subscripts", "rows"})
_BEFORE_NAME = frozenset({"lateral", "only"})
_ENDS_FROM = frozenset({
    "where", "group", "order", "having", "limit", "union", "except", "intersect", "window", "fetch", "for", "select",
})  # fmt: skip


@lru_cache(maxsize=512)
def not_the_apps(sql: str) -> str:
    """Why one statement does not belong in a corpus; empty when it does."""
    words = opening(sql, 2)
    if (words and words[0] in _VERBS) or sql.lower() in _QUESTIONS:
        return "questions of drivers (SHOW, DISCARD, version(), …)"
    if words in _OTHER_DATABASES:
        return "statements about whole databases"
    if words in _SECOND_PHASE:
        return "second phases of prepared transactions"
    if kind_of(sql) is Kind.READ and _asks_the_catalogs(sql):
        return "look-ups in the system's catalogs alone"
    return ""


def _asks_the_catalogs(sql: str) -> bool:
    """Whether it reads the system's catalogs and nothing else; in doubt it does not."""
    found = list(tokens(sql))
    made = set(_common_table_expressions(found))
    names = [name for name in _relations(found) if name not in made]
    return bool(names) and all(name in _CATALOGS for name in names)


def _relations(found: Sequence[Token]) -> Iterator[str]:
    """The first part of each name in a FROM clause; of a function too, unless it is known to read nothing."""
    listing: list[bool] = [False]  # for each open parenthesis: are we in a FROM clause there?
    awaited = False
    for token, after in zip(found, [*found[1:], Token("sign", "")], strict=True):
        word = token.text.lower()
        if word == "(":
            listing.append(False)
            awaited = False
        elif word == ")":
            listing[-1:] = [] if len(listing) > 1 else [False]
        elif word == "from":
            listing[-1] = awaited = True
        elif word == "join":
            awaited = True
        elif word in _ENDS_FROM and token.kind == "word":
            listing[-1] = awaited = False
        elif word == ",":
            awaited = listing[-1]
        elif awaited and word not in _BEFORE_NAME:
            awaited = False
            if not (after.text == "(" and word in _FUNCTIONS):
                yield token.text.strip('"') if token.kind == "quoted" else word


def _common_table_expressions(found: Sequence[Token]) -> Iterator[str]:
    """`name AS (`, `name (a, b) AS (`."""
    texts = [token.text.lower() for token in found]
    for i, text in enumerate(texts):
        after = i + 1
        if texts[after : after + 1] == ["("] and ")" in texts[after:]:
            after = texts.index(")", after) + 1
        if texts[after : after + 1] == ["as"] and texts[after + 1 : after + 2] in (["("], ["materialized"], ["not"]):
            yield text.strip('"')
