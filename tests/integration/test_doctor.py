"""`doctor` names what is missing, and only that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from helpers.app import approvals, client_of, cluster_change, shop, wait_ready
from helpers.changes import CASES, live_plan
from helpers.controlplane import Cluster, wait_until
from helpers.kubelet import Kubelet
from psycopg import sql

from parallelchange.adapters.kubernetes.client import connect
from parallelchange.adapters.kubernetes.doctor import check_cluster
from parallelchange.adapters.postgres.doctor import check_database
from parallelchange.checks import Check
from parallelchange.model import Severity, Verdict
from parallelchange.plan import Plan

pytestmark = pytest.mark.xdist_group("cluster")

CASE = CASES["split_column"]
GUARD = Path(__file__).resolve().parents[2] / "parallelchange" / "emit" / "kubernetes" / "guard"


def bad(checks: list[Check]) -> dict[str, Check]:
    """What keeps a rollout from working, by id."""
    return {check.id: check for check in checks if check.bad}


def warned(checks: list[Check]) -> set[str]:
    return {c.id for c in checks if c.verdict is not Verdict.PASS and c.severity is Severity.WARNING}


# The database.


@pytest.fixture
def plan(database: str) -> Plan:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(CASE.ddl)
        return live_plan(connection, CASE.operation)


@pytest.fixture
def stranger(database: str) -> Iterator[str]:
    """A URL of a role that owns nothing."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE stranger LOGIN")
        try:
            yield psycopg.conninfo.make_conninfo(database, user="stranger")
        finally:
            connection.execute("DROP OWNED BY stranger")
            connection.execute("DROP ROLE stranger")


def test_a_database_that_is_as_it_should_be(database: str, plan: Plan) -> None:
    checks = list(check_database(database, plan))
    assert bad(checks) == {}
    assert len(checks) > 8


def test_a_role_that_owns_nothing_is_told_all_it_lacks(stranger: str, plan: Plan) -> None:
    checks = list(check_database(stranger, plan))
    assert {"database.owner", "database.ledger", "database.create"} <= set(bad(checks))
    assert all(check.remedy for check in bad(checks).values())
    assert "database.stats" in warned(checks)


def test_a_database_that_takes_no_writes_is_told(database: str, plan: Plan) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    found = bad(list(check_database(database, plan)))["database.primary"]
    assert "default_transaction_read_only is on" in found.detail


def test_who_is_connected_and_is_neither_version(database: str, plan: Plan) -> None:
    def asked() -> Check:
        return next(check for check in check_database(database, plan) if check.id == "database.clients")

    wait_until(lambda: asked().verdict is Verdict.PASS, what="the end of the sessions that made the tables")
    with psycopg.connect(database, application_name="v0-worker"):
        found = asked()
    assert "'v0-worker'" in found.detail
    assert (found.verdict, found.bad, "`clients`" in found.remedy) == (Verdict.FAIL, False, True)


def test_row_security_that_hides_rows(database: str, stranger: str, plan: Plan) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for table in plan.tables:
            name = sql.Identifier(table.schema, table.name)
            connection.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(name))
    assert "database.rows" in bad(list(check_database(stranger, plan)))
    assert "database.rows" not in bad(list(check_database(database, plan)))


def test_a_table_that_is_not_there(database: str, plan: Plan) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for table in plan.tables:
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table.schema, table.name)))
    assert set(bad(list(check_database(database, plan)))) == {"database.table"}


def test_a_database_that_does_not_answer() -> None:
    (check,) = check_database("postgresql://me:secret@127.0.0.1:1/shop", None)
    assert check.bad
    assert "secret" not in f"{check.detail} {check.remedy}"


# The cluster.


def look(cluster: Cluster, router: str = "smi", kubeconfig: Path | None = None) -> list[Check]:
    client = client_of(cluster, kubeconfig=kubeconfig, patience=2.0)
    try:
        return list(check_cluster(cluster_change(router), client))
    finally:
        client.close()


def profile(cluster: Cluster) -> dict[str, object]:
    """What Linkerd's adaptor makes of the shop's split."""
    domain = f"{cluster.namespace}.svc.cluster.local"
    weights = {"shop-stable": 1000, "shop-canary": 0}
    return {
        "apiVersion": "linkerd.io/v1alpha2",
        "kind": "ServiceProfile",
        "metadata": {"name": f"shop.{domain}"},
        "spec": {"dstOverrides": [{"authority": f"{name}.{domain}", "weight": w} for name, w in weights.items()]},
    }


def with_proxy(objects: list[dict[str, object]]) -> list[dict[str, object]]:
    """As Linkerd's injector leaves Deployments' pods."""
    for each in objects:
        if each["kind"] == "Deployment":
            proxy = {"name": "linkerd-proxy", "image": "registry.example/proxy:1"}
            each["spec"]["template"]["spec"]["containers"].append(proxy)  # type: ignore[index]
    return objects


def test_a_cluster_that_is_as_it_should_be(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(with_proxy(shop("smi")))
    cluster.apply([profile(cluster), approvals()])
    for name in ("trafficsplit", "deployment", "service"):
        cluster.kubectl("apply", "-f", str(GUARD / f"{name}.yaml"))
    wait_ready(cluster)
    cluster.kubectl("label", "namespace", cluster.namespace, "parallelchange/guarded=true")
    checks = look(cluster)
    assert bad(checks) == {}, [check.finding() for check in bad(checks).values()]
    approved = next(check for check in checks if check.id == "guard.approvals")
    assert approved.detail == "0% for split-name"


def test_an_empty_namespace(cluster: Cluster) -> None:
    missing = bad(look(cluster))
    assert {"traffic.split", "copies.ready", "guard.approvals", "guard.namespace"} <= set(missing)
    assert all(check.remedy for check in missing.values())


def test_pods_without_their_proxy_and_a_mesh_that_does_not_follow(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(shop("smi"))
    wait_ready(cluster)
    assert {"copies.proxy", "traffic.mesh"} <= set(bad(look(cluster)))


def test_a_service_account_without_rights(cluster: Cluster) -> None:
    cluster.apply(shop("smi"))
    cluster.kubectl("create", "serviceaccount", "nobody")
    checks = look(cluster, kubeconfig=cluster.kubeconfig_for_service_account("nobody"))
    missing = bad(checks)
    assert "kubernetes.namespace" in missing or "rights.granted" in missing
    assert not any("Traceback" in check.detail for check in checks)


def test_an_api_server_that_does_not_answer(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
        "clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "contexts: [{name: x, context: {cluster: x, user: x}}]\nusers: [{name: x, user: {}}]\n"
    )
    client = connect(kubeconfig=config, patience=0.2)
    (check,) = check_cluster(cluster_change(), client)
    client.close()
    assert check.id == "kubernetes.answers"
    assert check.bad
