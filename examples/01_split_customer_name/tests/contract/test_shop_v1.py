"""Version 1 on the base schema, and on the expanded one."""

import pytest
from shop import v1
from shop.common import Settings
from shop_contract import ShopContract


class TestShopV1(ShopContract):
    version = v1.VERSION
    app = v1.app

    @pytest.mark.skipif(not Settings.from_env().export, reason="only with SHOP_EXPORT=1")
    def test_exports(self) -> None:
        assert self.send("POST", "/export").body == {"exported": 10}
