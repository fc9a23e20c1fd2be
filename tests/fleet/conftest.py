"""Lets the tests of this folder import its simulator and its fleet of real programs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
