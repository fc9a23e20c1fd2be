"""A deployment that somebody copied onto the card."""

import hashlib
import json
import shutil

import pytest

from firmware_images.first_boot.card_deployment import DeploymentProblemError, install_card_deployment
from firmware_images.first_boot.provision import DeviceFolders

from .cards import TINY


def test_a_deployment_on_the_card_is_installed_once(folders: DeviceFolders) -> None:
    shutil.copytree(TINY, folders.card / "deployment")
    digest = hashlib.sha256((TINY / "manifest.json").read_bytes()).hexdigest()[:16]
    assert install_card_deployment(folders.card, folders.root) == digest
    installed = folders.root / "var/lib/nonn-edge/deployment"
    assert {path.name for path in installed.iterdir()} == {path.name for path in TINY.iterdir() if path.name[0] != "."}
    assert install_card_deployment(folders.card, folders.root) == ""


def test_a_damaged_deployment_is_refused_and_the_old_one_stays(folders: DeviceFolders) -> None:
    shutil.copytree(TINY, folders.card / "deployment")
    install_card_deployment(folders.card, folders.root)
    manifest = json.loads((TINY / "manifest.json").read_text())
    (folders.card / "deployment/manifest.json").write_text(json.dumps(manifest))
    (folders.card / "deployment/head.npz").write_bytes(b"short")
    with pytest.raises(DeploymentProblemError, match=r"deployment/head.npz is damaged \(5 bytes, expected"):
        install_card_deployment(folders.card, folders.root)
    installed = folders.root / "var/lib/nonn-edge/deployment"
    assert (installed / "head.npz").read_bytes() == (TINY / "head.npz").read_bytes()
    assert (installed / "manifest.json").read_bytes() == (TINY / "manifest.json").read_bytes()


def test_a_manifest_cannot_name_files_outside_of_its_folder(folders: DeviceFolders) -> None:
    (folders.card / "deployment").mkdir()
    entry = {"file": "../../etc/passwd", "size_bytes": 1, "sha256": "0" * 64}
    (folders.card / "deployment/manifest.json").write_text(json.dumps({"head": entry}))
    with pytest.raises(DeploymentProblemError, match="no plain file name"):
        install_card_deployment(folders.card, folders.root)
