"""os_list.json against the schema that Raspberry Pi Imager publishes: what is taken, and what is refused, and how."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent.console.exit_codes import UserError
from firmware_images.cli import main
from firmware_images.imager import catalogue, check_catalogue
from firmware_images.spec import DEFAULT_SPEC, SPEC_FOLDER, ImageSpec, load_spec

# `required` of an image's entry in the published schema (draft 7), and its types.
REQUIRED = {
    "name": str, "description": str, "icon": str, "url": str, "extract_size": int, "extract_sha256": str,
    "image_download_size": int, "release_date": str, "devices": list,
}  # fmt: skip


@pytest.fixture
def document() -> dict[str, Any]:
    return catalogue(load_spec(DEFAULT_SPEC), "nonn-edge.img.zst", 4096, "a" * 64, 1024, "b" * 64)


def checked(document: object, folder: Path) -> None:
    path = folder / "os_list.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    check_catalogue(path)


@pytest.mark.parametrize("spec", ["nonn-edge.toml", "raspios.toml"])
def test_what_we_write_has_all_that_the_published_schema_requires(spec: str) -> None:
    document = catalogue(load_spec(SPEC_FOLDER / spec), "nonn-edge.img.xz", 4096, "a" * 64, 1024, "b" * 64)
    assert set(document) == {"os_list"}  # `imager` is for the list of Raspberry Pi itself; nothing else may be there
    [entry] = document["os_list"]
    assert {name: type(entry[name]) for name in REQUIRED} == REQUIRED
    assert all(type(device) is str for device in entry["devices"])


@pytest.mark.parametrize("name", [*REQUIRED, "image_download_sha256"])
def test_an_entry_without_a_required_key_is_refused(name: str, document: dict[str, Any], tmp_path: Path) -> None:
    del document["os_list"][0][name]
    with pytest.raises(UserError, match=rf"os_list\[0\]\.{name}: Field required"):
        checked(document, tmp_path)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *[(name, value) for name in REQUIRED for value in (None, True, {}, 1.5, "" if name != "devices" else [])],
        *[("extract_size", value) for value in ("4096", 0, -512, 1000)],
        *[("image_download_size", value) for value in ("1024", 0, -1)],
        *[("extract_sha256", value) for value in ("a" * 63, "A" * 64, "g" * 64, 7)],
        ("image_download_sha256", "b" * 65),
        *[("url", value) for value in (
            "nonn-edge.img.zst", "ftp://example.org/a.zst", "https:///a.zst", "https://example.org/", "file://",
            "https://example.org/nonn edge.img.zst", "https://example.org/a?b.zst", "https://example.org/nonn-edge.img",
        )],
        *[("icon", value) for value in ("../icon.png?", "javascript:alert(1)", "https://", "two words.png")],
        *[("website", value) for value in ("", "example.org", "file:///etc/passwd", "https://", 3)],
        *[("release_date", value) for value in ("2026-02-30", "2026-1-1", "23.11.2026", "2026-11-23T00:00Z", 20261123)],
        *[("devices", value) for value in ("pi4-64bit", ["pi4-16bit"], ["cm4"], [4], ["pi4-64bit", "pi4-64bit"])],
        *[("architecture", value) for value in ("arm64", "", 8)],
        *[("init_format", value) for value in ("system-d", "cloud-init", True)],
        *[("capabilities", value) for value in ("i2c", ["gpio"], [1])],
        *[("random", value) for value in ("yes", 1)],
        *[("tooltip", value) for value in ("", 1)],
        ("subitems", []),
        ("subitems_url", "https://example.org/more.json"),
        ("extract_sha265", "a" * 64),
    ],
)  # fmt: skip
def test_a_value_that_imager_would_stumble_over_is_refused_by_name(
    name: str, wrong: object, document: dict[str, Any], tmp_path: Path
) -> None:
    document["os_list"][0][name] = wrong
    with pytest.raises(UserError, match=rf"os_list\.json: os_list\[0\]\.{name}[:\[]"):
        checked(document, tmp_path)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("url", "file:///srv/images/nonn-edge.img.zst"), ("url", "http://example.org:8080/a.img.xz"),
        ("icon", "icons/nonn.png"), ("website", "https://example.org"), ("init_format", "none"),
        ("capabilities", ["secure_boot", "i2c"]), ("random", False), ("tooltip", "small"), ("architecture", "armhf"),
        ("devices", ["pi3", "pi5-64bit"]), ("release_date", "2028-02-29"),
    ],
)  # fmt: skip
def test_what_the_schema_allows_is_taken(name: str, right: object, document: dict[str, Any], tmp_path: Path) -> None:
    document["os_list"][0][name] = right
    checked(document, tmp_path)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "Invalid JSON"), ("[]", "Input should be an object"), ("{}", "os_list: Field required"),
        ('{"os_list": []}', "os_list: List should have at least 1 item"), ('{"os_list": {}}', "os_list: "),
        ('{"os_list": [3]}', r"os_list\[0\]: "), ('{"os_list": [{}], "imager": {}}', r"os_list\[0\]\.name"),
    ],
)  # fmt: skip
def test_a_file_of_another_shape_is_refused(text: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=where):
        checked(text, tmp_path)


def test_the_top_level_takes_nothing_but_images(document: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="imager: Extra inputs"):
        checked({**document, "imager": {"latest_version": "2.0"}}, tmp_path)


def test_a_catalogue_is_pointed_at_its_download_and_checked(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "os_list.json"
    assert main(["imager-manifest", str(tmp_path)]) == 65
    assert "No such file or directory; `nonn-image build` writes it" in capsys.readouterr().err
    path.write_text(json.dumps(document))
    assert main(["imager-manifest", str(tmp_path), "--url", "file:///srv/images"]) == 0
    assert "file:///srv/images/nonn-edge.img.zst" in capsys.readouterr().out
    written = path.read_bytes()
    assert main(["imager-manifest", str(tmp_path), "--url", "my disk"]) == 65
    assert "--url my disk: expected an address" in capsys.readouterr().err
    assert path.read_bytes() == written


def test_a_catalogue_of_another_image_than_the_one_beside_it_is_refused(
    document: dict[str, Any], tmp_path: Path
) -> None:
    packed = tmp_path / "nonn-edge.img.zst"
    packed.write_bytes(bytes(1000))
    with pytest.raises(UserError, match=r"image_download_size: 1024, but nonn-edge\.img\.zst has 1000 bytes"):
        checked(document, tmp_path)
    packed.write_bytes(bytes(1024))
    with pytest.raises(UserError, match=r"image_download_sha256: nonn-edge\.img\.zst has another"):
        checked(document, tmp_path)
    document["os_list"][0]["image_download_sha256"] = hashlib.sha256(bytes(1024)).hexdigest()
    checked(document, tmp_path)


def test_a_catalogue_without_a_way_to_download_is_refused() -> None:
    spec: ImageSpec = load_spec(DEFAULT_SPEC)
    imager = spec.imager.model_copy(update={"download": "my disk"})
    with pytest.raises(ValueError, match="url"):
        catalogue(spec.model_copy(update={"imager": imager}), "x.img.zst", 512, "a" * 64, 1, "b" * 64)
