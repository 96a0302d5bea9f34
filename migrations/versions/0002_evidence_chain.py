"""Evidence as one text a row, each linked to the row before it; what was kept in another form counts for nothing."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP TABLE parallelchange.evidence")
    op.execute("""
        CREATE TABLE parallelchange.evidence (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            change text NOT NULL REFERENCES parallelchange.change,
            about text NOT NULL,
            at bigint NOT NULL,
            body text NOT NULL,
            previous text NOT NULL,
            hash text NOT NULL
        )
    """)
    op.execute("CREATE INDEX evidence_of_change ON parallelchange.evidence (change, id)")
    op.execute("ALTER TABLE parallelchange.change ADD COLUMN evidence_head text")
    # What a fingerprint was taken of, to tell what differs.
    op.execute("CREATE TABLE parallelchange.schema (fingerprint text PRIMARY KEY, lines text NOT NULL)")


def downgrade() -> None:
    op.execute("DROP TABLE parallelchange.schema, parallelchange.evidence")
    op.execute("ALTER TABLE parallelchange.change DROP COLUMN evidence_head")
    op.execute("""
        CREATE TABLE parallelchange.evidence (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            change text NOT NULL REFERENCES parallelchange.change,
            version text NOT NULL,
            gate text NOT NULL,
            build text NOT NULL,
            fingerprint text NOT NULL,
            statements text NOT NULL,
            plan text NOT NULL,
            spec text NOT NULL,
            incarnation text NOT NULL,
            state text NOT NULL,
            verdict text NOT NULL CHECK (verdict IN ('pass', 'fail', 'unknown')),
            findings jsonb NOT NULL,
            measured jsonb NOT NULL,
            run text NOT NULL,
            measured_at timestamptz NOT NULL DEFAULT clock_timestamp()
        )
    """)
    op.execute("CREATE INDEX evidence_newest ON parallelchange.evidence (change, gate, version, measured_at DESC)")
