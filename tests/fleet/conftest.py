"""Lets the modules of this folder import each other, and the fleet of real programs that the benchmarks share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
