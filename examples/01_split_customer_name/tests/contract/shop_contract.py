"""What every version of the shop promises over HTTP. Each test file runs it against one version.

It sends every statement the version has, on a seeded database (`python -m shop.seed`), and it is what
`parallelchange record` keeps the statements of.
"""

import pytest
from shop.client import Answer, call
from shop.names import TRICKY
from starlette.types import ASGIApp

SEEDED = list(enumerate(TRICKY, start=1))


class ShopContract:
    """The promises; a subclass says which app has to keep them."""

    version: str
    app: ASGIApp

    def send(self, method: str, path: str, expect: int = 200, **body: object) -> Answer:
        answer = call(type(self).app, method, path, body or None)
        assert answer.status == expect, answer.body
        assert answer.headers["x-shop-version"] == self.version
        return answer

    def created(self, name: str, email: str = "new@example.test") -> int:
        body = self.send("POST", "/customers", expect=201, name=name, email=email).body
        assert (body["name"], body["email"]) == (name, email)
        return body["id"]

    @pytest.mark.parametrize(("number", "name"), SEEDED, ids=[str(number) for number, _ in SEEDED])
    def test_reads_a_seeded_name(self, number: int, name: str) -> None:
        expected = {"id": number, "name": name, "email": f"customer-{number}@example.test"}
        assert self.send("GET", f"/customers/{number}").body == expected

    def test_lists_customers_in_order(self) -> None:
        page = self.send("GET", "/customers?after=10&limit=5").body["customers"]
        assert [(customer["id"], customer["name"]) for customer in page] == SEEDED[10:15]

    def test_creates_and_renames_with_every_name(self) -> None:
        number = self.created(TRICKY[0])
        for name in TRICKY:
            assert self.send("PUT", f"/customers/{number}", name=name).body["name"] == name
            assert self.send("GET", f"/customers/{number}").body["name"] == name
        for name in TRICKY:
            assert self.send("GET", f"/customers/{self.created(name)}").body["name"] == name

    def test_a_new_email_leaves_the_name_alone(self) -> None:
        number = self.created("Ada  Lovelace ")
        self.send("PATCH", f"/customers/{number}/email", email="moved@example.test")
        found = self.send("GET", f"/customers/{number}").body
        assert found == {"id": number, "name": "Ada  Lovelace ", "email": "moved@example.test"}

    def test_keeps_orders(self) -> None:
        number = self.created("Ada")
        order = self.send("POST", f"/customers/{number}/orders", expect=201, item="book", quantity=2).body
        expected = [{"id": order["id"], "item": "book", "quantity": 2}]
        assert self.send("GET", f"/customers/{number}/orders").body == {"orders": expected}

    def test_refuses_what_it_cannot_serve(self) -> None:
        self.send("GET", "/customers/0", expect=404)
        self.send("PUT", "/customers/0", expect=404, name="Nobody")
        self.send("PATCH", "/customers/0/email", expect=404, email="nobody@example.test")
        self.send("POST", "/customers/0/orders", expect=404, item="book", quantity=1)
        self.send("POST", "/customers", expect=400, name="No email")
        self.send("POST", "/customers", expect=400, name="NUL \0", email="nul@example.test")

    def test_probes_itself_and_leaves_nothing_behind(self) -> None:
        last = self.created("Last")
        assert self.send("GET", "/healthz/contract").body == {"ok": True, "checked": len(TRICKY)}
        assert self.send("GET", f"/customers?after={last}").body == {"customers": []}

    def test_is_up(self) -> None:
        assert self.send("GET", "/healthz").body["ok"] is True
