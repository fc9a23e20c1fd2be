"""Settings for all tests: Hypothesis without deadlines, because the machines that run us are busy ones."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from edge_agent.console.deployment_directory import open_deployment

settings.register_profile("nonn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nonn")

# Doctests import every file; this one starts TensorFlow and is a tool, not a test.
collect_ignore = ["fixtures/make_tiny_deployment.py"]
REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))  # real_broker, for the tests of all folders


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return REPOSITORY


@pytest.fixture(scope="session")
def tiny(repository: Path) -> Path:
    """A deployment of three untrained students for 8 x 8 grey images; see tests/fixtures."""
    return repository / "tests/fixtures/tiny"


@pytest.fixture
def golden_image(tiny: Path) -> NDArray[np.uint8]:
    """The golden input of `tiny`: (8, 8, 1), uint8."""
    manifest = open_deployment(tiny).manifest
    shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
    return np.fromfile(tiny / manifest.golden_input.file, np.uint8).reshape(shape)
