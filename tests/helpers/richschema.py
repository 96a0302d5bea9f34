"""A schema with everything in it that a copy has to keep, and rows that are not easy to keep."""

from __future__ import annotations

__all__ = ["RICH", "ROLES"]

ROLES = ("copy_owner", "copy_app", "copy_reader", "copy_group")

RICH = """
CREATE ROLE copy_owner NOLOGIN; CREATE ROLE copy_app NOLOGIN NOINHERIT; CREATE ROLE copy_reader LOGIN BYPASSRLS;
CREATE ROLE copy_group NOLOGIN; GRANT copy_group TO copy_app WITH ADMIN OPTION; GRANT pg_monitor TO copy_reader;
CREATE SCHEMA "Odd Schema" AUTHORIZATION copy_owner;
CREATE SCHEMA sales;
GRANT USAGE ON SCHEMA sales TO copy_owner, copy_app, copy_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE copy_owner IN SCHEMA sales GRANT SELECT ON TABLES TO copy_reader;
CREATE TYPE sales.mood AS ENUM ('sad', 'glad');
CREATE DOMAIN sales.short AS varchar(40) CHECK (length(VALUE) > 0);
CREATE TYPE sales.place AS (street text, no int);
CREATE TYPE sales.span AS RANGE (subtype = int4);
CREATE FUNCTION sales.twice(i int) RETURNS int LANGUAGE sql IMMUTABLE RETURN i * 2;
CREATE TABLE sales.customers (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text UNIQUE, phone text, note sales.short,
  mood sales.mood DEFAULT 'glad', home sales.place, code uuid DEFAULT gen_random_uuid(), size int CHECK (size > 0),
  double int GENERATED ALWAYS AS (sales.twice(size)) STORED, tags text[], boss bigint REFERENCES sales.customers);
ALTER TABLE sales.customers OWNER TO copy_owner;
CREATE TABLE sales.regions (country text, region int, label text, PRIMARY KEY (country, region));
CREATE TABLE "Odd Schema"."Orders ""x"" y" (
  id serial PRIMARY KEY, "customer id" bigint NOT NULL REFERENCES sales.customers DEFERRABLE INITIALLY DEFERRED,
  country text, region int, at date NOT NULL DEFAULT '2027-03-01', span int4range,
  FOREIGN KEY (country, region) REFERENCES sales.regions,
  EXCLUDE USING gist (span WITH &&) DEFERRABLE);
CREATE TABLE sales.loose (a int, b text);
CREATE TABLE sales.a (id int PRIMARY KEY, b int); CREATE TABLE sales.b (id int PRIMARY KEY, a int REFERENCES sales.a);
ALTER TABLE sales.a ADD FOREIGN KEY (b) REFERENCES sales.b;
CREATE TABLE sales.events (id bigint, at date, who text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE sales.events_1 PARTITION OF sales.events FOR VALUES FROM ('2027-01-01') TO ('2027-07-01');
CREATE TABLE sales.events_2 PARTITION OF sales.events FOR VALUES FROM ('2027-07-01') TO ('2028-01-01');
CREATE TABLE sales.clicks (id int PRIMARY KEY, event bigint, at date, FOREIGN KEY (event, at) REFERENCES sales.events);
CREATE TABLE sales.old (id int PRIMARY KEY, customer bigint, size int);
CREATE INDEX old_size ON sales.old (size) WHERE size > 3;
CREATE UNIQUE INDEX customers_lower ON sales.customers (lower(email));
CREATE SEQUENCE sales.numbers INCREMENT 7 START 11; SELECT nextval('sales.numbers'), nextval('sales.numbers');
CREATE SEQUENCE sales.fresh START 5;
CREATE VIEW sales.happy WITH (security_barrier) AS SELECT id, email FROM sales.customers WHERE mood = 'glad';
CREATE VIEW sales.grouped AS SELECT id, email, count(*) FROM sales.customers GROUP BY id;
CREATE MATERIALIZED VIEW sales.counted AS SELECT count(*) FROM sales.customers;
CREATE MATERIALIZED VIEW sales.again AS SELECT * FROM sales.counted;
CREATE MATERIALIZED VIEW sales.never AS SELECT 1 AS one WITH NO DATA;
CREATE RULE keep AS ON DELETE TO sales.regions DO INSTEAD NOTHING;
CREATE FUNCTION sales.touch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = sales
  AS 'BEGIN NEW.b := ''touched''; RETURN NEW; END';
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON sales.loose FOR EACH ROW EXECUTE FUNCTION sales.touch();
CREATE FUNCTION sales.seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END';
CREATE EVENT TRIGGER copy_seen ON ddl_command_end EXECUTE FUNCTION sales.seen();
COMMENT ON EVENT TRIGGER copy_seen IS 'seen';
CREATE POLICY own ON sales.customers FOR SELECT TO copy_app USING (email = current_user);
CREATE POLICY all_ ON sales.customers AS RESTRICTIVE USING (true) WITH CHECK (size > 0);
ALTER TABLE sales.customers ENABLE ROW LEVEL SECURITY;
ALTER TABLE sales.customers FORCE ROW LEVEL SECURITY;
COMMENT ON TABLE sales.customers IS 'those who buy';
COMMENT ON COLUMN sales.customers.email IS 'how they are reached';
GRANT SELECT (id, email), UPDATE (note) ON sales.customers TO copy_app;
GRANT SELECT ON sales.regions TO PUBLIC; GRANT INSERT ON sales.loose TO copy_group WITH GRANT OPTION;
REVOKE EXECUTE ON FUNCTION sales.twice(int) FROM PUBLIC; GRANT EXECUTE ON FUNCTION sales.twice(int) TO copy_app;
GRANT USAGE ON SEQUENCE sales.numbers TO copy_app;
CREATE STATISTICS sales.st ON a, b FROM sales.loose;
INSERT INTO sales.customers (email, phone, note, home, size, tags, boss)
  SELECT format('person%s@example.org', i), '+49 30 ' || 100000 + i, 'note ' || i,
    ROW('Street', i)::sales.place, 1 + i % 9, ARRAY['a', NULL],
    CASE WHEN i % 3 = 0 THEN 301 - i ELSE nullif(i - 1, 0) END FROM generate_series(1, 300) i;
INSERT INTO sales.regions SELECT 'c' || i % 7, i, 'label ' || i FROM generate_series(1, 200) i;
INSERT INTO "Odd Schema"."Orders ""x"" y" ("customer id", country, region)
  SELECT 1 + i * 37 % 300, CASE WHEN i % 5 > 0 THEN 'c' || (1 + i % 200) % 7 END, 1 + i % 200
  FROM generate_series(1, 400) i;
INSERT INTO sales.loose SELECT i % 50, 'x' FROM generate_series(1, 200) i;
ALTER TABLE sales.a DISABLE TRIGGER ALL;
INSERT INTO sales.a SELECT i, 101 - i FROM generate_series(1, 100) i;
ALTER TABLE sales.a ENABLE TRIGGER ALL;
INSERT INTO sales.b SELECT i, 1 + i * 7 % 100 FROM generate_series(1, 100) i;
INSERT INTO sales.events SELECT i, date '2027-01-01' + i, 'who' || i FROM generate_series(0, 360) i;
INSERT INTO sales.clicks SELECT i, i * 3 % 360, date '2027-01-01' + i * 3 % 360 FROM generate_series(1, 300) i;
INSERT INTO sales.old SELECT i, i * 100, -i FROM generate_series(1, 60) i;
ALTER TABLE sales.old ADD FOREIGN KEY (customer) REFERENCES sales.customers NOT VALID;
ALTER TABLE sales.old ADD CHECK (size > 0) NOT VALID;
REFRESH MATERIALIZED VIEW sales.counted;
REFRESH MATERIALIZED VIEW sales.again;
"""
