"""The rules of the house: who imports whom, what each program drags along, what the wheel holds."""

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

HEAVY = {"tensorflow", "keras", "networkx", "sklearn", "tvm", "trainer", "amqtt"}


def tracked(repository: Path) -> list[Path]:
    if shutil.which("git") is None or not (repository / ".git").exists():
        pytest.skip("not a git clone: what is tracked is unknown")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True)
    return [repository / name for name in listed.stdout.split("\0") if name and (repository / name).is_file()]


def test_import_contracts_hold(repository: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--cache-dir", str(tmp_path), "--no-logo"]
    found = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", found.stdout)


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            "edge_agent.cli, edge_agent.metrics, edge_agent.managed_agent, edge_agent.protocol.mqtt_link",
            HEAVY | {"PIL", "rich", "coordinator", "ssl", "cryptography", "http", "paho", "ai_edge_litert"},
        ),
        (
            "coordinator.cli, coordinator.app, coordinator.settings",
            HEAVY | {"edge_agent.app", "ai_edge_litert", "rich"},
        ),
        ("trainer.cli, trainer.filter_graph, trainer.partition", {"tensorflow", "keras", "coordinator"}),
        (
            "edge_agent.protocol.manifest, edge_agent.protocol.head, edge_agent.protocol.feature_message",
            HEAVY | {"paho", "PIL", "rich", "psutil", "coordinator", "edge_agent.console"},
        ),
    ],
)
def test_a_fresh_interpreter_stays_light(repository: Path, modules: str, absent: set[str]) -> None:
    script = f"import sys, {modules}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert absent & set(found.stdout.split()) == set()


def test_packages_export_nothing_heavy(repository: Path) -> None:
    for name in ("edge_agent", "edge_agent.protocol", "edge_agent.console", "coordinator", "trainer"):
        path = repository / name.replace(".", "/") / "__init__.py"
        imports = [line for line in path.read_text().splitlines() if re.match(r"\s*(import|from)\s", line)]
        assert imports == [], f"{name} imports at once"


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that a clean clone builds."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    kept = ("edge_agent", "coordinator", "trainer", "firmware_images")
    for path in tracked(repository):
        inside = path.relative_to(repository)
        if inside.parts[0] in kept or len(inside.parts) == 1:
            (source / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / inside)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "-w",
        str(target),
    ]
    try:
        recent = int(metadata.version("setuptools").split(".")[0]) >= 77
    except metadata.PackageNotFoundError:
        recent = False
    isolation = ["--no-build-isolation"] if recent else []  # else pip fetches setuptools
    built = subprocess.run([*command, *isolation, "."], cwd=source, capture_output=True, text=True, timeout=240)
    if not recent and "setuptools>=77" in built.stderr:
        pytest.skip("setuptools is older than 77 here and no package index can be reached")
    assert built.returncode == 0, built.stderr
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_programs_and_nothing_else(repository: Path, wheel: zipfile.ZipFile) -> None:
    with wheel:
        names = wheel.namelist()
        scripts = wheel.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    tops = {name.split("/")[0] for name in names}
    assert {"edge_agent", "coordinator", "trainer"} <= tops
    assert all(
        top in ("edge_agent", "coordinator", "trainer", "firmware_images") or ".dist-info" in top for top in tops
    )
    assert "edge_agent/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    entries = configparser.ConfigParser()
    entries.read_string(scripts)
    programs = {"nonn-agent": "edge_agent", "nonn-coordinator": "coordinator", "nonn-trainer": "trainer"}
    assert {name: f"{package}.cli:main" for name, package in programs.items()}.items() <= entries[
        "console_scripts"
    ].items()
    for package in ("edge_agent", "coordinator", "trainer"):
        ours = {
            path for path in tracked(repository) if path.suffix == ".py" and path.is_relative_to(repository / package)
        }
        missing = {str(path.relative_to(repository)) for path in ours} - set(names)
        assert missing == set(), f"modules that the wheel lacks: {missing}"


def test_no_file_names_a_place_of_one_machine(repository: Path) -> None:
    # Put together here, so that this file does not name them either.
    places = re.compile("/wo" + "rk/(main|shared|brief)|" + r"\.\./" + "shared")
    for path in tracked(repository):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = places.search(text)
        assert found is None, f"{path.relative_to(repository)}: {found}"


def test_every_broker_that_we_configure_has_nodelay(repository: Path) -> None:
    for path in tracked(repository):
        if path.suffix in {".md", ".svg", ".lock"}:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if re.search(r"^[\"' ]*listener (\d|\{)", text, re.MULTILINE):
            assert "set_tcp_nodelay true" in text, path.relative_to(repository)


def test_pure_modules_read_no_clock(repository: Path) -> None:
    """Stricter than the import contract: not even by another name."""
    for name in (
        "frame_message",
        "feature_message",
        "topics",
        "head",
        "npz",
        "manifest",
        "quantization",
        "json_message",
    ):
        text = (repository / "edge_agent/protocol" / f"{name}.py").read_text()
        assert not re.search(r"\b(time\.|datetime\.now|os\.environ|open\(|random\.)", text), name
