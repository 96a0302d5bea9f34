"""The ledger: what stands, what was intended, what was proven."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE parallelchange.change (
            name text PRIMARY KEY,
            fence bigint NOT NULL DEFAULT 0,
            weight integer CHECK (weight BETWEEN 0 AND 1000),
            weight_since timestamptz,
            pending jsonb,
            contracted_at timestamptz,
            aborted text,
            aborts integer NOT NULL DEFAULT 0,
            old_seen boolean NOT NULL DEFAULT false,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("""
        CREATE TABLE parallelchange.journal (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            change text NOT NULL REFERENCES parallelchange.change,
            at timestamptz NOT NULL DEFAULT clock_timestamp(),
            act text NOT NULL,
            outcome text NOT NULL CHECK (outcome IN ('intended', 'done', 'failed', 'void')),
            detail jsonb NOT NULL
        )
    """)
    op.execute("""
        CREATE TABLE parallelchange.backfill (
            change text NOT NULL REFERENCES parallelchange.change,
            pass text NOT NULL,
            cursor jsonb,
            incarnation text NOT NULL,
            rows bigint NOT NULL DEFAULT 0,
            total bigint,
            started_at timestamptz NOT NULL DEFAULT now(),
            finished_at timestamptz,
            PRIMARY KEY (change, pass)
        )
    """)
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


def downgrade() -> None:
    op.execute(
        "DROP TABLE parallelchange.evidence, parallelchange.backfill, parallelchange.journal, parallelchange.change"
    )
