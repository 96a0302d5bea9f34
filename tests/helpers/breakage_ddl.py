"""What somebody does to the schema while the old version is at work, one kind each, as the schema's owner."""

from __future__ import annotations

__all__ = ["DDL", "NOTHING", "OF_ROWS"]

NOTHING = "nothing"
"""The control: where nothing is done, nothing may break and nothing may block."""

OF_ROWS = frozenset({"empty table", "sequence begins anew"})
"""They leave the schema as it is, and no fingerprint of it can tell them: rows change all the time."""

_RAISE = "RAISE EXCEPTION 'not like this'"
_VIEW = (
    "CREATE VIEW active_customers AS SELECT id, name, email FROM customers WHERE status IN ('active', 'vip');"
    "GRANT SELECT, INSERT, UPDATE, DELETE ON active_customers TO app"
)


def _trigger(name: str, when: str, on: str, body: str, *, constraint: str = "", each: str = "ROW") -> str:
    """A trigger with a function of its own."""
    kind = "CONSTRAINT TRIGGER" if constraint else "TRIGGER"
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;"
        f"CREATE {kind} {name} {when} ON {on} {constraint} FOR EACH {each} EXECUTE FUNCTION {name}()"
    )


def _here(command: str) -> str:
    """A command on this very database, whatever it is called."""
    return f"DO $$ BEGIN EXECUTE format('{command}', current_database()); END $$"


DDL: dict[str, str] = {
    NOTHING: "SELECT",
    # Columns come.
    "add nullable column": "ALTER TABLE customers ADD COLUMN nickname text",
    "add column not null default": "ALTER TABLE countries ADD COLUMN region text NOT NULL DEFAULT 'none'",
    "add column not null, empty table": ("DELETE FROM export; ALTER TABLE export ADD COLUMN batch integer NOT NULL"),
    "add generated column": ("ALTER TABLE orders ADD COLUMN cents integer GENERATED ALWAYS AS (amount * 100) STORED"),
    "add virtual column": "ALTER TABLE items ADD COLUMN doubled integer GENERATED ALWAYS AS (qty * 2) VIRTUAL",
    "add column volatile default": "ALTER TABLE customers ADD COLUMN token uuid NOT NULL DEFAULT gen_random_uuid()",
    # Columns go, or are called otherwise.
    "drop column": "ALTER TABLE customers DROP COLUMN note",
    "rename column": "ALTER TABLE customers RENAME COLUMN name TO full_name",
    "rename column in functions only": "ALTER TABLE customers RENAME COLUMN balance TO owed",
    "rename table": "ALTER TABLE customers RENAME TO clients",
    "rename table behind a view": (
        "ALTER TABLE customers RENAME TO clients; CREATE VIEW customers AS SELECT * FROM clients;"
        "GRANT SELECT, INSERT, UPDATE, DELETE ON customers TO app"
    ),
    "rename schema": "ALTER SCHEMA reports RENAME TO reporting",
    "rename function": "ALTER FUNCTION discount RENAME TO rebate",
    "rename view": "ALTER VIEW active_customers RENAME TO busy_customers",
    "rename enum value": "ALTER TYPE customer_status RENAME VALUE 'vip' TO 'premium'",
    "rename sequence": "ALTER SEQUENCE order_numbers RENAME TO order_ids",
    "rename type": "ALTER DOMAIN phone_number RENAME TO telephone",
    "rename constraint": "ALTER TABLE settings RENAME CONSTRAINT settings_key TO settings_unique",
    # Types.
    "widen integer to bigint": "ALTER TABLE counters ALTER COLUMN n TYPE bigint",
    "widen varchar": f"DROP VIEW active_customers; ALTER TABLE customers ALTER COLUMN email TYPE varchar(200); {_VIEW}",
    "narrow varchar": "ALTER TABLE products ALTER COLUMN label TYPE varchar(12) USING left(label, 12)",
    "narrow integer to smallint": "UPDATE stock SET qty = 0; ALTER TABLE stock ALTER COLUMN qty TYPE smallint",
    "smallint to text": "ALTER TABLE products ALTER COLUMN tier TYPE text",
    "timestamptz to timestamp": "ALTER TABLE orders ALTER COLUMN placed_at TYPE timestamp",
    "enum to text": (
        "DROP VIEW active_customers; ALTER TABLE customers ALTER COLUMN status DROP DEFAULT;"
        "ALTER TABLE customers ALTER COLUMN status TYPE text;"
        f"{_VIEW};"
        "ALTER TABLE customers ALTER COLUMN status SET DEFAULT 'new'; ALTER TABLE export ALTER COLUMN status TYPE text;"
        "DROP TYPE customer_status"
    ),
    "collation": 'ALTER TABLE customers ALTER COLUMN note TYPE text COLLATE "C"',
    # NOT NULL and defaults.
    "set not null": (
        "UPDATE customers SET phone = '+49 30 1' WHERE phone IS NULL;"
        "ALTER TABLE customers ALTER COLUMN phone SET NOT NULL"
    ),
    "drop not null": "ALTER TABLE customers ALTER COLUMN name DROP NOT NULL",
    "set default": "ALTER TABLE customers ALTER COLUMN note SET DEFAULT ''",
    "drop default": "ALTER TABLE orders ALTER COLUMN state DROP DEFAULT",
    "drop sequence default": "ALTER TABLE orders ALTER COLUMN id DROP DEFAULT",
    "default out of the domain": "ALTER TABLE customers ALTER COLUMN country SET DEFAULT 'none'",
    # Constraints.
    "add check": "ALTER TABLE orders ADD CONSTRAINT small CHECK (amount < 50) NOT VALID",
    "add check on what is copied": "ALTER TABLE events ADD CONSTRAINT own CHECK (what NOT LIKE 'copied%') NOT VALID",
    "add check that holds": "ALTER TABLE orders ADD CONSTRAINT sane CHECK (amount < 1000000)",
    "add foreign key": ("ALTER TABLE items ADD CONSTRAINT items_sku FOREIGN KEY (sku) REFERENCES stock NOT VALID"),
    "referenced by a new table": (
        "CREATE TABLE returns (order_id bigint, line integer, FOREIGN KEY (order_id, line) REFERENCES items);"
        "INSERT INTO returns SELECT order_id, line FROM items"
    ),
    "drop primary key": "ALTER TABLE customers DROP CONSTRAINT customers_pkey CASCADE",
    "add unique index": (
        "DELETE FROM memos a USING memos b WHERE a.owner = b.owner AND a.id > b.id;"
        "CREATE UNIQUE INDEX memos_owner ON memos (owner)"
    ),
    "drop inferred unique index": "DROP INDEX counters_name",
    "add exclusion": (
        "DELETE FROM bookings a USING bookings b WHERE a.room = b.room AND a.id > b.id;"
        "ALTER TABLE bookings ADD CONSTRAINT bookings_room EXCLUDE USING hash (room WITH =)"
    ),
    "not deferrable": "ALTER TABLE items ALTER CONSTRAINT items_order NOT DEFERRABLE",
    "domain constraint": "ALTER DOMAIN phone_number ADD CONSTRAINT abroad CHECK (VALUE LIKE '+%') NOT VALID",
    "identity always": "ALTER TABLE customers ALTER COLUMN id SET GENERATED ALWAYS",
    "empty table": "TRUNCATE products",
    # Indexes.
    "drop index": "DROP INDEX orders_customer",
    "create index": "CREATE INDEX orders_state ON orders (state)",
    "index that computes": (
        "TRUNCATE items;"
        "INSERT INTO items SELECT o, n, 'sku-' || n FROM generate_series(1, 10) o, generate_series(1, 30) n;"
        "SET CONSTRAINTS ALL IMMEDIATE; CREATE INDEX items_sku ON items ((split_part(sku, 'sku-', 2)::int))"
    ),
    # Views and functions.
    "drop view": "DROP VIEW active_customers",
    "view with more columns": (
        "CREATE OR REPLACE VIEW active_customers AS"
        " SELECT id, name, email, note FROM customers WHERE status IN ('active', 'vip')"
    ),
    "view of nothing": ("CREATE OR REPLACE VIEW active_customers AS SELECT id, name, email FROM customers WHERE false"),
    "view that fails late": (
        "CREATE OR REPLACE VIEW active_customers AS"
        " SELECT id, (name || left('x', (1 / (id - id))::int))::text AS name, email FROM customers"
    ),
    "view no longer writable": (
        "CREATE OR REPLACE VIEW active_customers AS"
        " SELECT DISTINCT id, name, email FROM customers WHERE status IN ('active', 'vip')"
    ),
    "materialized view empty": "REFRESH MATERIALIZED VIEW order_totals WITH NO DATA",
    "function that raises late": (
        "CREATE OR REPLACE FUNCTION place_order(customer bigint, amount integer) RETURNS bigint LANGUAGE plpgsql AS"
        " $$ BEGIN UPDATE customers SET last_order = now() WHERE id = customer; RETURN 1; END $$"
    ),
    "function that does nothing": (
        "CREATE OR REPLACE FUNCTION place_order(customer bigint, amount integer) RETURNS bigint LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN 1; END $$"
    ),
    "drop function": "DROP FUNCTION place_order",
    "function of another result": (
        "DROP FUNCTION discount; CREATE FUNCTION discount(amount integer) RETURNS numeric LANGUAGE sql"
        " AS 'SELECT amount / 10.0'"
    ),
    "function of another argument": (
        "DROP FUNCTION discount; CREATE FUNCTION discount(amount text) RETURNS integer LANGUAGE sql"
        " AS 'SELECT amount::int / 10'"
    ),
    "function of a wider argument": (
        "DROP FUNCTION discount; CREATE FUNCTION discount(amount bigint) RETURNS integer LANGUAGE sql"
        " AS 'SELECT amount::int / 10'"
    ),
    "ambiguous overload": (
        "CREATE FUNCTION discount(amount bigint) RETURNS integer LANGUAGE sql AS 'SELECT amount::int / 10'"
    ),
    "overload with a default": (
        "CREATE FUNCTION place_order(customer bigint, amount integer, note text DEFAULT '') RETURNS bigint"
        " LANGUAGE sql AS 'SELECT 1::bigint'"
    ),
    # Triggers and rules.
    "drop trigger": "DROP TRIGGER orders_audit ON orders",
    "before trigger raises for some": _trigger(
        "guard", "BEFORE INSERT OR UPDATE", "orders", f"IF NEW.amount > 40 THEN {_RAISE}; END IF; RETURN NEW;"
    ),
    "before trigger swallows": _trigger("swallow", "BEFORE INSERT", "orders", "RETURN NULL;"),
    "after trigger raises": _trigger("guard", "AFTER UPDATE", "customers", f"{_RAISE};"),
    "deferred trigger raises": _trigger(
        "guard", "AFTER INSERT", "items", f"{_RAISE};", constraint="DEFERRABLE INITIALLY DEFERRED"
    ),
    "statement trigger": _trigger("counted", "AFTER UPDATE", "stock", "RETURN NULL;", each="STATEMENT"),
    "trigger with a late body": _trigger("late", "BEFORE INSERT", "export", "NEW.batch := 1; RETURN NEW;"),
    "trigger that knows the version": _trigger(
        "guard",
        "BEFORE INSERT",
        "counters",
        f"IF current_setting('application_name') = 'shop-v1' THEN {_RAISE}; END IF; RETURN NEW;",
    ),
    "trigger that knows the role": _trigger(
        "guard", "BEFORE INSERT", "counters", f"IF session_user <> 'app' THEN {_RAISE}; END IF; RETURN NEW;"
    ),
    "trigger the role may not": (
        "CREATE TABLE ledger (what text);"
        + _trigger("keep", "AFTER INSERT", "events", "INSERT INTO ledger VALUES (NEW.what); RETURN NULL;")
    ),
    "rule instead nothing": "CREATE RULE audit_off AS ON INSERT TO audit DO INSTEAD NOTHING",
    # Privileges.
    "row security without policy": "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
    "row security for all": (
        "CREATE POLICY orders_all ON orders USING (true); ALTER TABLE orders ENABLE ROW LEVEL SECURITY"
    ),
    "row security on writes": (
        "CREATE POLICY orders_small ON orders USING (true) WITH CHECK (amount < 50);"
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY"
    ),
    "revoke on table": "REVOKE UPDATE ON orders FROM app",
    "revoke on column": "REVOKE SELECT (name) ON staff FROM app",
    "revoke on sequence": "REVOKE ALL ON SEQUENCE order_numbers FROM app",
    "revoke on schema": "REVOKE USAGE ON SCHEMA reports FROM app",
    "revoke on function": "REVOKE EXECUTE ON FUNCTION discount FROM PUBLIC",
    "revoke from the view's owner": "REVOKE SELECT ON customers FROM shop_owner",
    "grant": "GRANT SELECT ON staff TO app",
    # Sequences.
    "sequence at its end": (
        "DO $$ BEGIN EXECUTE format('ALTER SEQUENCE order_numbers MAXVALUE %s',"
        " (SELECT last_value FROM order_numbers)); END $$"
    ),
    "sequence begins anew": "ALTER SEQUENCE order_numbers RESTART WITH 1",
    # Where names lead, and what a new session starts with.
    "search_path of the database": _here("ALTER DATABASE %I SET search_path = reports"),
    "search_path of the role": _here("ALTER ROLE app IN DATABASE %I SET search_path = reports"),
    "read-only role": _here("ALTER ROLE app IN DATABASE %I SET default_transaction_read_only = on"),
    "role of the role": _here("ALTER ROLE app IN DATABASE %I SET role = clerk"),
    "row_security of the role": _here("ALTER ROLE app IN DATABASE %I SET row_security = off"),
    "read-only database": _here("ALTER DATABASE %I SET default_transaction_read_only = on"),
    "table to another schema": "ALTER TABLE stock SET SCHEMA reports",
    "table to another schema in path": (
        "ALTER TABLE stock SET SCHEMA reports;" + _here("ALTER DATABASE %I SET search_path = public, reports")
    ),
    "same name earlier in path": (
        "CREATE SCHEMA app; CREATE TABLE app.products (LIKE products); GRANT USAGE ON SCHEMA app TO app;"
        "GRANT ALL ON app.products TO app"
    ),
    # Types and partitions.
    "add enum value": "ALTER TYPE customer_status ADD VALUE 'lost'",
    "detach partition": "ALTER TABLE events DETACH PARTITION events_2027",
    "attach partition": "CREATE TABLE events_2028 PARTITION OF events FOR VALUES FROM ('2028-01-01') TO ('2029-01-01')",
    "replica identity nothing": "ALTER TABLE stock REPLICA IDENTITY NOTHING",
    # What ought to do no harm.
    "comment": "COMMENT ON TABLE customers IS 'People who buy'",
    "same table anew": (
        "CREATE TABLE new_export (LIKE export); DROP TABLE export; ALTER TABLE new_export RENAME TO export;"
        "GRANT SELECT, INSERT ON export TO app"
    ),
    "analyze": "ANALYZE",
    "create table": "CREATE TABLE unrelated (id bigint PRIMARY KEY)",
    "unlogged": "ALTER TABLE export SET UNLOGGED",
}
"""Every kind of DDL."""
