"""The report of a run in any state: self-contained, complete, and never a traceback."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_agent.console.exit_codes import UserError
from trainer.datasets import load_dataset
from trainer.filter_graph import class_activity, filter_activation_matrix, normalise_activations, save_filter_graph
from trainer.partition import partition_filters
from trainer.report import write_report
from trainer.report.scores import evaluated_scores

FILTERS, STUDENTS = 24, 3
CLASSES = ("ant", "bee & wasp", "cat")


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A small data set of seeded noise; class c is bright in colour c."""
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 2)):
        for number, name in enumerate(CLASSES):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                pixels = random.integers(0, 80, (8, 8, 3), dtype=np.uint8)
                pixels[..., number] += 170
                Image.fromarray(pixels).save(folder / f"{image}.png")
    return tmp_path / "photos"


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Path:
    """A finished run in the formats that the stages write."""
    path = tmp_path / "run"
    write_json(
        path / "run.json",
        {
            "configuration": {
                "dataset": str(photos),
                "teacher": "/models/<teacher>.keras",
                "student": ["wrn-16-1"],
                "students": STUDENTS,
                "precisions": ["int8", "float32"],
                "split_seed": 0,
                "image_size": None,
            },
            "created": "2026-11-22T18:00:00+00:00",
            "commit": "0123abc",
            "versions": {"numpy": "2"},
        },
    )
    validation = load_dataset(str(photos)).validation
    random = np.random.default_rng(1)
    preference = random.gamma(0.4, size=(len(CLASSES), FILTERS))
    activations = (preference[validation.labels] * random.random((len(validation), FILTERS))).astype(np.float16)
    (path / "activations").mkdir()
    np.savez(path / "activations" / "validation-0000.npz", activities=activations, logits=activations)
    normalised = normalise_activations(activations.astype(np.float32))
    matrix, activity = filter_activation_matrix(normalised), class_activity(normalised, validation.labels, 3)
    partition = partition_filters(matrix, STUDENTS, activity=activity)
    write_json(path / "partition" / "partition.json", partition.to_dict())
    save_filter_graph(path / "partition" / "graph.npz", matrix, activity)
    history = [
        {"loss": 3.0 / n, "val_accuracy": 0.5 + n / 10, "val_accuracy_without_1": 0.4 + n / 10, "pass": n}
        for n in range(1, 5)
    ]
    write_json(path / "distill" / "history.json", history)
    for stage in ("teacher", "activations", "partition", "distill", "exporting", "evaluation"):
        results = {"parameters": 8_955_050, "validation_accuracy": 0.97} if stage == "activations" else {}
        write_json(
            path / stage / "stage.json", {"finished": "2026-11-22T18:10:00", "seconds": 12.0, "results": results}
        )
    student = {"network": "wrn-16-1", "parameters": 178_210, "macs": 26_700_000}
    artifacts = [
        {"precision": precision, "engine": "tflite", "size_bytes": size}
        for precision, size in (("int8", 204_544), ("float32", 710_188))
    ]
    students = [{**student, "index": k, "width": len(partition.filters[k]), "artifacts": artifacts} for k in range(3)]
    write_json(path / "export" / "manifest.json", {"classes": CLASSES, "students": students})
    by_mask = {str(mask): round(0.6 + 0.1 * mask.bit_count() + mask / 1000, 4) for mask in range(1, 8)}
    row = {"accuracy": by_mask["7"], "accuracy_by_mask": by_mask, "artifact_bytes": [204_544] * 3}
    evaluation = {
        "teacher_accuracy": 0.9678, "accuracy": by_mask["7"], "precision": "int8", "test_images": 600,
        "precisions": {"int8": row, "float32": {**row, "accuracy": 0.9111}},
    }  # fmt: skip
    write_json(path / "evaluation.json", evaluation)
    return path


class Page(HTMLParser):
    """Text, tags and everything the page would fetch; every tag must be closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.fetched: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data + "\n"


def report_of(run: Path) -> Page:
    file = write_report(run)
    assert file == run / "report.html"
    return Page(file.read_text())


def test_a_finished_run_shows_everything(run: Path) -> None:
    page = report_of(run)
    assert page.open == []
    for words in (
        "Teacher against students", "Who may be missing", "Partition: which student learns what", "Filter graph",
        "F matrix by partition", "Classes and students", "Training curves", "Images each partition likes most",
        "Precisions", "How this run was made", "600 test images",
        "96.78 %", "90.70 %", "91.11 %", "without student 1", "student 1, student 2", "205 KB",
        "178.2 K", "50.2x", "bee & wasp",
    ):  # fmt: skip
        assert words in page.words, words
    assert "Not in this report yet" not in page.words
    assert "3 students for <teacher>" in page.words


def test_nothing_is_fetched(run: Path) -> None:
    page = report_of(run)
    assert page.fetched
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched)
    text = (run / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(", text)


def test_every_filter_is_a_node_in_its_students_colour(run: Path) -> None:
    text = write_report(run).read_text()
    partition = json.loads((run / "partition" / "partition.json").read_text())
    groups = re.findall(r'<g class="nodes" data-s="(\d+)"[^>]*>(.*?)</g>', text)
    drawn = [sorted(map(int, re.findall(r"filter (\d+), student", circles))) for _, circles in groups]
    assert drawn == [sorted(part) for part in partition["filters"]]
    for hubs in partition["hubs"]:
        assert f'">{hubs[0]}</text>' in text
    assert "links are drawn" in text


STAGES_BACKWARDS = ["evaluation.json", "export", "distill", "partition", "activations"]


def test_a_run_at_any_stage_says_what_is_missing(run: Path) -> None:
    import shutil

    for name in STAGES_BACKWARDS:
        target = run / name
        target.unlink() if target.is_file() else shutil.rmtree(target)
        page = report_of(run)
        assert page.open == []
        assert "Not in this report yet" in page.words
    assert "nonn-trainer partition --out" in page.words
    assert "Filter graph" not in page.words


@pytest.mark.parametrize(
    "damaged",
    [
        "partition/partition.json",
        "partition/graph.npz",
        "evaluation.json",
        "export/manifest.json",
        "distill/history.json",
        "distill/stage.json",
        "activations/validation-0000.npz",
    ],
)
def test_a_damaged_file_costs_its_section_only(run: Path, damaged: str) -> None:
    (run / damaged).write_bytes((run / damaged).read_bytes()[:20])
    page = report_of(run)
    assert "How this run was made" in page.words
    assert page.open == []


def test_an_evaluation_of_another_make_is_taken_as_missing(run: Path) -> None:
    write_json(run / "evaluation.json", {"precision": "int8", "precisions": {"int8": {"accuracy_by_mask": {"x": 1}}}})
    assert "have not been evaluated" in report_of(run).words


def test_a_lost_data_set_costs_the_pictures_only(run: Path, photos: Path) -> None:
    photos.rename(photos.with_name("elsewhere"))
    page = report_of(run)
    assert "No pictures of images that partitions like" in page.words
    assert "Filter graph" in page.words


def test_a_training_in_progress_shows_its_passes(run: Path) -> None:
    (run / "distill" / "history.json").rename(run / "distill" / "kept.json")
    history = json.loads((run / "distill" / "kept.json").read_text())
    state = np.frombuffer(json.dumps({"step": 8, "history": history[:2]}).encode(), np.uint8)
    np.savez(run / "distill" / "checkpoint.npz", state=state, v0=np.zeros(3))
    assert "without student 1" in report_of(run).words


def test_no_run_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run here; expected a directory with the run\.json"):
        write_report(tmp_path)


def test_words_from_outside_cannot_break_the_page(run: Path) -> None:
    content = json.loads((run / "run.json").read_text())
    content["configuration"]["teacher"] = "<script>alert(1)</script>"
    content["commit"] = '"><img src=x>'
    write_json(run / "run.json", content)
    page = report_of(run)
    assert page.counts["script"] == 1
    assert all(source.startswith("data:") for source in page.fetched)


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_masks_are_students_that_are_present() -> None:
    row = {"accuracy": 0.9, "accuracy_by_mask": {"5": 0.8, "7": 0.9}, "artifact_bytes": [1, 2, 3]}
    scores = evaluated_scores({"precision": "int8", "precisions": {"int8": row}, "accuracy": 0.9})
    assert scores.subsets == {(0, 2): 0.8, (0, 1, 2): 0.9}
