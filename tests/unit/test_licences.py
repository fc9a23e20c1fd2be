"""What devices and coordinators install may be shipped with Apache-2.0."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def licences(repository: Path) -> dict[str, Any]:
    return runpy.run_path(str(repository / ".ci/licences.py"))


def test_every_licence_of_agent_and_coordinator_is_accepted(licences: dict[str, Any]) -> None:
    found = licences["shipped_licences"]()
    packages = {licence.package for licence in found}
    assert {"ai-edge-litert", "cryptography", "numpy", "paho-mqtt", "pydantic", "starlette", "uvicorn"} <= packages
    # TensorFlow, TVM and test tools must not come in through a side door.
    assert not packages & {"tensorflow", "tensorflow-cpu", "keras", "networkx", "apache-tvm", "pytest", "playwright"}
    assert [licence for licence in found if not licence.is_accepted] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIT", True),
        ("Apache Software", True),
        ("EPL-2.0 OR BSD-3-Clause", True),
        ("MPL-2.0 AND MIT", True),
        ("(MIT AND BSD-2-Clause)", True),
        ("Apache-2.0 WITH LLVM-exception", False),
        ("GPL-3.0-or-later", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("AGPL-3.0-only OR GPL-2.0-only", False),
        ("MIT AND GPL-2.0-only", False),
        ("none named", False),
        ("Mitigated Source License", False),
    ],
)
def test_what_is_accepted(licences: dict[str, Any], text: str, expected: bool) -> None:
    kind: Callable[..., Any] = licences["Licence"]
    assert kind("package", "1", text).is_accepted is expected
