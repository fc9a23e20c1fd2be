"""benchmarks/feature_bytes.py writes down what it prints, and what it prints is what travels."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.console.deployment_directory import open_deployment

IMAGES = 60


@pytest.fixture(scope="module")
def run(repository: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """Output and JSON of one run on the fixture's untrained students and scikit-learn's digits."""
    file = tmp_path_factory.mktemp("feature-bytes") / "figures.json"
    command = ["--deployment", tiny, "--dataset", "digits", "--images", str(IMAGES), "--json", file]
    ended = subprocess.run(
        [sys.executable, repository / "benchmarks" / "feature_bytes.py", *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (figures,) = json.loads(file.read_text())
    return ended.stdout, figures


def test_the_encoders_are_the_files_of_the_deployment(run: tuple[str, dict], tiny: Path) -> None:
    output, figures = run
    deployment = open_deployment(tiny)
    assert figures["deployment"] == deployment.id
    assert (figures["dataset"], figures["training_images"], figures["validation_images"]) == ("digits", IMAGES, IMAGES)
    for student, encoder in zip(deployment.manifest.students, figures["encoders"], strict=True):
        file = tiny / f"student-{student.index}.float32.tflite"
        assert encoder == {
            "student": student.index, "size_bytes": file.stat().st_size, "features": student.width
        }  # fmt: skip
        assert f"student {student.index}: encoder {file.stat().st_size} bytes (float32)" in output


def test_the_encodings_are_those_of_the_printed_table(run: tuple[str, dict]) -> None:
    output, figures = run
    header, _, *rows = [line for line in output.splitlines() if line.startswith("|")]
    names = [name.strip() for name in header.strip("|").split("|")]
    printed = [dict(zip(names, (cell.strip() for cell in row.strip("|").split("|")), strict=True)) for row in rows]
    assert [row["features as"] for row in printed[:-1]] == [one["features_as"] for one in figures["encodings"]]
    assert {one["encoding"] for one in figures["encodings"]} == {"float32", "int8", "int4"}
    *printed, shipped = printed
    assert shipped["message, largest"] == str(max(figures["shipped"]["message_bytes"]))
    assert shipped["accuracy"] == f"{100 * figures['shipped']['accuracy']:.2f} %"
    for row, one in zip(printed, figures["encodings"], strict=True):
        assert row["payload bytes, mean"] == f"{one['mean_payload_bytes']:.1f}"
        assert row["message, largest"] == str(one["largest_message_bytes"])
        assert row["accuracy"] == f"{100 * one['accuracy']:.2f} %"
        header_bytes = one["largest_message_bytes"] - one["largest_payload_bytes"]
        assert one["mean_message_bytes"] == one["mean_payload_bytes"] + header_bytes


def test_fewer_bits_are_fewer_bytes(run: tuple[str, dict], tiny: Path) -> None:
    plain = {one["encoding"]: one for one in run[1]["encodings"] if not one["deflate"]}
    widths = open_deployment(tiny).manifest.widths
    assert plain["float32"]["largest_payload_bytes"] == 4 * max(widths)
    assert plain["int8"]["largest_payload_bytes"] == max(widths)
    assert plain["int4"]["largest_payload_bytes"] == (max(widths) + 1) // 2
    assert plain["float32"]["points_lost"] == 0
