"""The Debian package in emulated arm64 systems of Debian 12 and 13: installed, used, upgraded, removed, purged.

NONN_ARM64_ROOTS names the systems, such as `bookworm=/srv/d12,trixie=/srv/d13`; each is a folder that mmdebstrap made
(--arch=arm64 --variant=apt --include=systemd,python3), used through qemu-user. NONN_PACKAGES is where `nonn-image deb`
wrote.
"""

import os
import shutil
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.cli import main as coordinator
from edge_agent.console.exit_codes import UserError
from firmware_images.debian_package import FROM_DEBIAN, SUITES, fill_tree, pack, write_control
from firmware_images.wheels import require_clone

ROOTS = dict(entry.split("=", 1) for entry in os.environ.get("NONN_ARM64_ROOTS", "").split(",") if "=" in entry)
PACKAGES = Path(os.environ.get("NONN_PACKAGES", "dist"))
TINY = Path(__file__).parent.parent / "fixtures/tiny"
CARD = '[device]\nname = "pi-a"\nstudent = 1\n[broker]\nhost = "10.0.0.1"\ninsecure = true\n'
# What dpkg, apt and the account tools keep about themselves.
BOOKKEEPING = ("var/lib/dpkg", "var/lib/apt", "var/cache", "var/log", "tmp", "etc/passwd-", "etc/group-", "etc/shadow-",
               "etc/gshadow-", "etc/subuid-", "etc/subgid-", "run", "proc", "etc/.pwd.lock")  # fmt: skip
OPEN_STUDENT = """
from pathlib import Path; import numpy
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.student_slot import open_student
slot = open_student(open_deployment(Path("/tmp/tiny")), 1, "auto", "auto", 1)
print(numpy.__file__, slot.artifact.file, slot.selftest_error <= slot.student.golden.tolerance)
"""


class Chroot:
    """An emulated system; every command runs in namespaces of its own, so nothing stays mounted or running."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, code: int = 0) -> str:
        script = 'mount -t proc proc "$1/proc"; r=$1; shift; exec chroot "$r" "$@"'
        words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", str(self.root)]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run([*words, *command], capture_output=True, text=True, env=environment)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout + done.stderr

    def files(self) -> set[str]:
        found: set[str] = set()
        for path, folders, files in os.walk(self.root):
            folder = Path(path).relative_to(self.root)
            folders[:] = [name for name in folders if not _is_bookkeeping(folder / name)]
            found |= {str(folder / name) for name in [*files, *folders] if not _is_bookkeeping(folder / name)}
        return found


def _is_bookkeeping(path: Path) -> bool:
    return str(path).startswith(BOOKKEEPING) or "__pycache__" in path.parts


@pytest.fixture(params=["bookworm", "trixie"])
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def chroot(suite: str) -> Iterator[Chroot]:
    if suite not in ROOTS:
        pytest.skip(f"needs an arm64 {suite}: NONN_ARM64_ROOTS={suite}=FOLDER")
    root = Path(ROOTS[suite])
    (root / "etc/resolv.conf").unlink(missing_ok=True)  # systemd-resolved leaves a link into /run
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copytree(TINY, root / "tmp/tiny", dirs_exist_ok=True)
    yield Chroot(root)
    shutil.rmtree(root / "tmp/tiny")


@pytest.mark.slow
@pytest.mark.timeout(3000)  # every instruction of Python and apt is emulated
def test_the_package_installs_runs_upgrades_and_purges_clean(suite: str, chroot: Chroot, tmp_path: Path) -> None:
    [package] = PACKAGES.glob(f"nonn-edge_*~deb{SUITES[suite].number}_arm64.deb")
    shutil.copy(package, chroot.root / "tmp/first.deb")
    _newer(package, chroot.root / "tmp/second.deb", tmp_path)
    chroot.run("apt-get", "update", "-qq")
    # What the package depends on, so that a purge can be held against the list of files; nothing that it does not name.
    chroot.run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *_depends(package), "mosquitto")
    before = chroot.files()

    chroot.run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "/tmp/first.deb")
    assert "nonn-agent 0." in chroot.run("nonn-agent", "--version")
    python = "/usr/lib/nonn-edge/venv/bin/python3"
    said = chroot.run(python, "-I", "-W", "error", "-c", OPEN_STUDENT)
    [numpy, artifact, agrees] = next(line.split() for line in said.splitlines() if line.startswith("/usr/"))
    assert numpy.startswith("/usr/lib/python3/dist-packages/")  # as picamera2 sees it
    assert (artifact, agrees) == ("student-1.int8.tflite", "True")
    # Systems made small leave documentation out.
    changed = chroot.run("dpkg", "--verify", "nonn-edge").splitlines()
    assert [line for line in changed if "/usr/share/doc/nonn-edge" not in line] == []
    wanted = chroot.root / "etc/systemd/system/multi-user.target.wants"
    assert (wanted / "edge-agent.service").is_symlink()

    (chroot.root / "tmp/card.toml").write_text(CARD.replace("= 1", "= 999"))
    assert "student = 999" in chroot.run("nonn-edge-setup", "/tmp/card.toml", code=65)
    assert not (chroot.root / "etc/nonn-edge/agent.toml").exists()
    (chroot.root / "tmp/card.toml").write_text(CARD)
    assert "needs --deployment" in chroot.run("nonn-edge-setup", "/tmp/card.toml", code=65)
    assert "pi-a: role agent" in chroot.run("nonn-edge-setup", "/tmp/card.toml", "--deployment", "/tmp/tiny")
    settings = (chroot.root / "etc/nonn-edge/agent.toml").read_text()
    hostname = (chroot.root / "etc/hostname").read_text()
    assert "pi-a" not in hostname  # an ordinary system keeps its name

    (chroot.root / "tmp/hub.toml").write_bytes(hub_card(tmp_path))
    assert "hub: role both" in chroot.run("nonn-edge-setup", "/tmp/hub.toml")
    assert chroot.run("stat", "-c", "%U %a", "/etc/nonn-edge/broker/server.key") == "mosquitto 600\n"
    assert (chroot.root / "etc/mosquitto/conf.d/nonn-edge.conf").exists()
    settings = (chroot.root / "etc/nonn-edge/agent.toml").read_text()

    chroot.run("dpkg", "-i", "/tmp/second.deb")
    assert (chroot.root / "etc/nonn-edge/agent.toml").read_text() == settings
    assert "nonn-agent 0." in chroot.run("nonn-agent", "--version")

    chroot.run("dpkg", "--remove", "nonn-edge")
    assert not (chroot.root / "usr/lib/nonn-edge").exists()
    assert (chroot.root / "etc/nonn-edge/agent.toml").read_text() == settings
    chroot.run("dpkg", "--purge", "nonn-edge")
    assert chroot.files() - before == set()
    assert before - chroot.files() == set()
    assert "nonn-edge" not in (chroot.root / "etc/passwd").read_text()
    assert "nonn-edge" not in (chroot.root / "etc/group").read_text()


def _depends(package: Path) -> list[str]:
    """The packages that it names in Depends, without their versions."""
    shown = subprocess.run(["dpkg-deb", "-f", package, "Depends"], capture_output=True, text=True, check=True).stdout
    return sorted({entry.split()[0] for entry in shown.split(",")})


def hub_card(folder: Path) -> bytes:
    """A card of a device that is agent, coordinator and broker."""
    assert coordinator(["init", str(folder / "site"), "--broker-host", "hub.local"]) == 0
    assert (
        coordinator(["device", "add", "hub", "--role", "both", "--students", "1", "--dir", str(folder / "site")]) == 0
    )
    return (folder / "site/cards/hub/nonn-edge.toml").read_bytes()


def _newer(package: Path, target: Path, scratch: Path) -> None:
    """The same package with a higher version."""
    tree = scratch / "newer"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("\nVersion: 0.", "\nVersion: 9."))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, target], check=True, capture_output=True)
    shutil.rmtree(tree)


@pytest.fixture
def our_wheel(tmp_path: Path) -> Path:
    """A wheel with the console scripts of pyproject.toml and one module: what the package's layout needs of it."""
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    wheel = tmp_path / "nonn_edge-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        lines = "".join(f"{name} = {entry}\n" for name, entry in scripts.items())
        archive.writestr("nonn_edge-1.dist-info/entry_points.txt", f"[console_scripts]\n{lines}")
        archive.writestr("edge_agent/__init__.py", "")
    return wheel


def test_equal_trees_are_equal_packages_and_name_what_they_need(tmp_path: Path, our_wheel: Path) -> None:
    packages = []
    for name in ("one", "two"):
        tree = tmp_path / name
        fill_tree(tree, [], our_wheel, [])
        write_control(tree, SUITES["trixie"], "1~deb13")
        packages.append(pack(tree, tmp_path / f"{name}.deb", 1_700_000_000).read_bytes())
    assert packages[0] == packages[1]
    shown = subprocess.run(["dpkg-deb", "-f", tmp_path / "one.deb"], capture_output=True, text=True, check=True).stdout
    assert "Depends: python3 (>= 3.13), python3 (<< 3.14), python3-numpy" in shown
    listed = subprocess.run(["dpkg-deb", "-c", tmp_path / "one.deb"], capture_output=True, text=True, check=True).stdout
    for path in ("bin/nonn-agent", "sbin/nonn-edge-setup", "lib/systemd/system/edge-agent@.service"):
        assert f"./usr/{path}" in listed
    assert {line.split()[1] for line in listed.splitlines()} == {"root/root"}
    assert FROM_DEBIAN[0] not in {line.split("/site/")[-1].split("/")[0] for line in listed.splitlines()}


def test_without_a_clone_it_says_where_images_are_built(tmp_path: Path) -> None:
    require_clone()
    with pytest.raises(UserError, match="from a clone"):
        require_clone(tmp_path)


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_valid_for_dash(script: str) -> None:
    shell = shutil.which("dash") or "sh"
    subprocess.run([shell, "-n", Path(__file__).parents[2] / "firmware_images/debian" / script], check=True)
