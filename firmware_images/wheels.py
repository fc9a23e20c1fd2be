"""Python packages for the image: downloaded by hash for arm64, ours built from this tree; no arm code runs."""

import configparser
import hashlib
import os
import shutil
import sys
import zipfile
from pathlib import Path, PurePosixPath

from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.runtimes.tvm_library import ENVIRONMENT_VARIABLE, extract_library
from firmware_images import programs
from firmware_images.spec import ImageSpec

REPOSITORY = Path(__file__).resolve().parent.parent
# pip compares platform tags literally, so every glibc up to bookworm's 2.36 is named; trixie's is newer still.
GLIBC_TAGS = ("2_36", "2_35", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17")
OUR_PACKAGES = ("edge_agent", "coordinator", "firmware_images")
# The trainer needs TensorFlow, which the image leaves out.
LAUNCHERS = ("nonn-agent", "nonn-coordinator")


def require_clone(repository: Path = REPOSITORY) -> None:
    """UserError where nonn-image was installed from a wheel, which has neither units nor documents to build from."""
    if not (repository / "pyproject.toml").is_file():
        raise UserError(
            "images and packages are built from a clone of the repository; expected `make image` or `make deb` in one",
            ExitCode.USAGE,
        )


def download_wheels(python: str, lock: Path, folder: Path) -> None:
    """Fetch the lock file's wheels into `folder`; pip refuses a wrong hash and anything not listed."""
    platforms = [f"manylinux_{tag}_aarch64" for tag in GLIBC_TAGS] + ["manylinux2014_aarch64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for tag in platforms:
        command += ["--platform", tag]
    for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
        command += ["--abi", abi]
    programs.run([*command, "--dest", folder, "--requirement", lock])


def download_tvm_runtime(python: str, lock: Path, folder: Path) -> None:
    """Take TVM's light runtime, and its version, out of the one wheel that the lock file names."""
    scratch = folder / "wheel"
    download_wheels(python, lock, scratch)
    [wheel] = scratch.glob("*.whl")
    extract_library(wheel, folder)
    shutil.rmtree(scratch)


def source_fingerprint(repository: Path = REPOSITORY) -> str:
    """Return a hash over the sources that our wheel is made of."""
    digest = hashlib.sha256()
    for path in our_sources(repository):
        digest.update(path.relative_to(repository).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def our_sources(repository: Path) -> list[Path]:
    """List the files that go into our wheel, sorted."""
    found = [repository / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    for package in OUR_PACKAGES:
        found += [path for path in (repository / package).rglob("*") if path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def build_our_wheel(spec: ImageSpec, folder: Path, repository: Path = REPOSITORY) -> None:
    """Build this repository's wheel out of a copy, so that no build folder appears in the tree."""
    copy = folder / "source"
    for path in our_sources(repository):
        target = copy / path.relative_to(repository)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        # A wheel is a zip with time stamps; setuptools takes the epoch for those it makes itself only.
        os.utime(target, (spec.source_date_epoch, spec.source_date_epoch))
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        copy,
    ]
    programs.run([*command, "--wheel-dir", folder], environment={"SOURCE_DATE_EPOCH": str(spec.source_date_epoch)})
    shutil.rmtree(copy)


def unpack_wheel(wheel: Path, site: Path) -> None:
    """Unpack a wheel into a site folder; files that belong outside of it (scripts, headers) are left out."""
    with zipfile.ZipFile(wheel) as archive:
        for member in sorted(archive.infolist(), key=lambda one: one.filename):
            inside = _inside_site(member.filename)
            if inside is None or member.is_dir():
                continue
            target = site / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(member))


def _inside_site(name: str) -> PurePosixPath | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"a wheel holds {name}, which would land outside of its folder", ExitCode.BAD_INPUT)
    if not path.parts[0].endswith(".data"):
        return path
    if path.parts[1] in {"purelib", "platlib"}:
        return PurePosixPath(*path.parts[2:])
    return None


def console_scripts(wheel: Path) -> dict[str, str]:
    """Return the console scripts that a wheel declares: name -> module:function."""
    with zipfile.ZipFile(wheel) as archive:
        declared = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        if not declared:
            return {}
        parser = configparser.ConfigParser()
        parser.read_string(archive.read(declared[0]).decode())
    return dict(parser["console_scripts"]) if parser.has_section("console_scripts") else {}


def launcher(entry_point: str, site: str, python: str = "/usr/bin/python3") -> str:
    """Return a start script for an entry point; isolated from the environment and from the current folder.

    >>> print(launcher("edge_agent.cli:main", "/usr/lib/nonn-edge/site"), end="")
    #!/usr/bin/python3 -I
    import os, sys
    sys.path.insert(0, "/usr/lib/nonn-edge/site")
    os.environ.setdefault("NONN_TVM_RUNTIME", "/usr/lib/nonn-edge")
    from edge_agent.cli import main
    sys.exit(main())
    """
    module, function = entry_point.split(":")
    lines = [f"#!{python} -I", "import os, sys", f'sys.path.insert(0, "{site}")']
    # Found when a TVM student is opened, and only then.
    lines.append(f'os.environ.setdefault("{ENVIRONMENT_VARIABLE}", "{PurePosixPath(site).parent}")')
    return "\n".join([*lines, f"from {module} import {function}", f"sys.exit({function}())"]) + "\n"
