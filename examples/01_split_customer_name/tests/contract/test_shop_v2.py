"""Version 2 on the expanded schema, and on the contracted one."""

from shop import v2
from shop_contract import ShopContract


class TestShopV2(ShopContract):
    version = v2.VERSION
    app = v2.app
