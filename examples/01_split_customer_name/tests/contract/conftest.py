"""Lets `pytest` find the shop, from whichever folder it is started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
