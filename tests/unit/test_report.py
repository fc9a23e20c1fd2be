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
from trainer.report.charts import Line, line_chart, nice_ticks
from trainer.report.graph_layout import node_places, strongest_links
from trainer.report.pictures import favourites, matrix_picture, partition_shares
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


def matrix_of(filters: int, seed: int = 0) -> np.ndarray:
    return filter_activation_matrix(np.random.default_rng(seed).random((50, filters)))


@pytest.mark.parametrize(("filters", "students"), [(1, 1), (2, 2), (5, 1), (40, 4), (200, 9)])
def test_places_are_inside_the_picture_and_apart(filters: int, students: int) -> None:
    matrix = matrix_of(filters)
    student_of = np.array(partition_filters(matrix, students, "contiguous").student_of)
    places = node_places(matrix, student_of)
    assert places.shape == (filters, 2)
    assert np.isfinite(places).all()
    assert places.min() >= 0
    assert places.max() <= 1
    distances = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(filters)
    assert distances.min() > 0.1 / filters**0.5 / 4 or filters == 1
    np.testing.assert_array_equal(places, node_places(matrix, student_of))


def test_students_that_are_communities_form_islands() -> None:
    student_of = np.arange(60) % 3
    matrix = matrix_of(60) * np.where(student_of[:, None] == student_of, 1.0, 0.2)
    places = node_places(matrix, student_of)
    centres = np.stack([places[student_of == s].mean(axis=0) for s in range(3)])
    nearest = np.linalg.norm(places[:, None] - centres[None], axis=2).argmin(axis=1)
    assert np.mean(nearest == student_of) > 0.9


def test_links_are_the_heaviest_of_each_node() -> None:
    matrix = matrix_of(12)
    pairs = {tuple(pair) for pair in strongest_links(matrix, 2).tolist()}
    for node in range(12):
        for partner in np.argsort(-matrix[node])[:2]:
            assert (min(node, int(partner)), max(node, int(partner))) in pairs


def test_favourites_are_the_images_of_the_largest_share() -> None:
    random = np.random.default_rng(0)
    activations = random.random((60, 6))
    partition = partition_filters(filter_activation_matrix(activations), 2)

    class Split:
        images = random.integers(0, 255, (60, 4, 4, 1), dtype=np.uint8)
        labels = np.arange(60) % 3

    groups = favourites(activations, partition, Split, ("a", "b", "c"))
    shares = partition_shares(activations, partition)
    for student, liked in enumerate(groups):
        assert len(liked) == 18
        assert liked[0].share == pytest.approx(shares[:, student].max())
        assert [image.share for image in liked] == sorted((image.share for image in liked), reverse=True)
        assert max(sum(image.label == c for image in liked) for c in "abc") <= 6


def test_the_matrix_picture_orders_filters_by_student_and_hub() -> None:
    import base64
    import io

    matrix = matrix_of(20)
    partition = partition_filters(matrix, 2)
    picture = Image.open(io.BytesIO(base64.b64decode(matrix_picture(matrix, partition).split(",")[1])))
    step = picture.width // 20
    pixels = np.asarray(picture)[step // 2 :: step, step // 2 :: step]
    degrees = matrix.sum(axis=1)
    order = [f for part in partition.filters for f in sorted(part, key=lambda f: -degrees[f])]
    expected = np.sqrt(matrix[np.ix_(order, order)] / np.percentile(matrix[matrix > 0], 99.5)).clip(0, 1)
    np.testing.assert_allclose(pixels[..., 3] / 255, expected, atol=0.003)
    size = partition.sizes[0]
    assert len(np.unique(pixels[:size, :size, :3].reshape(-1, 3), axis=0)) == 1
    assert (pixels[:size, size:, :3] == 128).all()


def test_a_chart_of_nothing_is_nothing_and_gaps_are_skipped() -> None:
    assert line_chart("t", [Line("a", "#000", [])], []) == ""
    assert line_chart("t", [Line("a", "#000", [None, float("nan")])], [1, 2]) == ""
    drawn = line_chart("t", [Line("a", "#000", [1.0, None, 3.0])], [1, 2, 3])
    assert len(re.search(r'points="([^"]*)"', drawn)[1].split()) == 2


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.913, 0.917), (-3, 5), (7, 7), (0, 0), (1e-6, 2e-6), (12, 48_000)])
def test_ticks_cover_the_range_and_are_few(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
    assert 2 <= len(ticks) <= 8


def test_masks_are_students_that_are_present() -> None:
    row = {"accuracy": 0.9, "accuracy_by_mask": {"5": 0.8, "7": 0.9}, "artifact_bytes": [1, 2, 3]}
    scores = evaluated_scores({"precision": "int8", "precisions": {"int8": row}, "accuracy": 0.9})
    assert scores.subsets == {(0, 2): 0.8, (0, 1, 2): 0.9}
