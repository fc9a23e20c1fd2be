"""What stands beside an image: catalogue, checksums and bill, held against what their readers expect."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_images.image_check import check_image
from firmware_images.imager import check_catalogue
from firmware_images.release_files import ReleaseOptions, write_release
from firmware_images.spec import ImageSpec

from .conftest import require_tools


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A tree with one Debian and one Python package."""
    root = tmp_path / "content/root"
    status = root / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: base-files\nStatus: install ok installed\nArchitecture: arm64\nVersion: 12.4+deb12u9\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: arm64\nVersion: 1\n"
    )
    metadata = root / "usr/lib/nonn-edge/site/paho_mqtt-2.2.0.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: paho-mqtt\nVersion: 2.2.0\nLicense-Expression: EPL-2.0\n")
    return tmp_path / "content"


def test_a_release_has_checksums_a_signature_a_catalogue_and_a_bill(
    tiny_spec: ImageSpec, tiny_image: Path, content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_tools("zstd", "xz", "gpg")
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    key = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "release@example.org", "ed25519", "sign"]
    subprocess.run(key, check=True, capture_output=True)
    output = tmp_path / "dist"
    output.mkdir()
    options = ReleaseOptions(xz=True, sign_key="release@example.org")
    write_release(tiny_spec, tiny_image, content, output, options, lambda _: None)

    signed = dict(reversed(line.split()) for line in (output / "SHA256SUMS").read_text().splitlines())
    for name, digest in signed.items():
        assert hashlib.sha256((output / name).read_bytes()).hexdigest() == digest
    for packed in ("tiny.img.zst", "tiny.img.xz"):
        assert packed in signed
        assert check_image(tiny_spec, output / packed)
    verified = ["gpg", "--verify", output / "SHA256SUMS.asc", output / "SHA256SUMS"]
    assert subprocess.run(verified, capture_output=True).returncode == 0
    (output / "SHA256SUMS").write_text("0" * 64 + "  tiny.img\n")
    assert subprocess.run(verified, capture_output=True).returncode != 0
    subprocess.run(["gpgconf", "--kill", "all"], check=False, capture_output=True)

    document = json.loads((output / "os_list.json").read_text())
    [entry] = document["os_list"]
    assert check_catalogue(output / "os_list.json").model_dump(exclude_none=True) == document
    assert entry["extract_size"] == tiny_image.stat().st_size
    assert entry["extract_sha256"] == hashlib.sha256(tiny_image.read_bytes()).hexdigest()

    bill = json.loads((output / f"{tiny_spec.name}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert [part["name"] for part in bill["components"]] == ["base-files", "paho-mqtt"]
    shutil.rmtree(home, ignore_errors=True)
