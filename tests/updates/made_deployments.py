"""Deployments made for a test, and what each of them must answer."""

import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.console.exit_codes import UserError
from edge_agent.inference import feature_message
from edge_agent.protocol.bundle import Bundle, make_bundle
from edge_agent.protocol.feature_message import decode_features, encode_features
from edge_agent.protocol.head import MergeHead, probabilities
from edge_agent.protocol.manifest import Manifest, file_entry
from edge_agent.protocol.prediction_message import PredictionMessage
from edge_agent.protocol.signature import SigningKey
from edge_agent.student_slot import open_student

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"


def make_version(
    number: int, key: SigningKey | None, pad_bytes: int = 0, head_sign: int = 1, broken: int = -1, **changes: object
) -> Bundle:
    """Another real deployment: float32 students in even versions, int8 in odd ones, a head of its own for each.

    `pad_bytes` of zeros behind the flatbuffer make the files as long as real students'. Student `broken` gives other
    features than its manifest says: it fails its self-test.
    """
    base = open_deployment(TINY).manifest
    files = {entry.file: (TINY / entry.file).read_bytes() for entry in base.files()}
    precision = "float32" if number % 2 == 0 else "int8"
    head = MergeHead.from_bytes(files["head.npz"], base.widths, len(base.classes))
    scale = np.float32(number * head_sign)
    heads = {mask: type(h)(h.weights * scale, h.bias, h.temperature) for mask, h in head.heads.items()}
    files["head.npz"] = MergeHead(head.widths, head.classes, heads, head.mean).to_bytes()
    students = []
    for student in base.students:
        artifact = next(a for a in student.artifacts if a.precision == precision)
        files[artifact.file] += number.to_bytes(4, "little") + bytes(pad_bytes)
        artifact = artifact.model_copy(update=file_entry(Path(artifact.file), files[artifact.file]).model_dump())
        golden = student.golden
        if student.index == broken:
            golden = golden.model_copy(update={"features": tuple(f + 1000 * golden.tolerance for f in golden.features)})
        students.append(student.model_copy(update={"artifacts": (artifact,), "golden": golden}))
    manifest = base.model_copy(
        update={
            "version": number,
            "students": tuple(students),
            "head": file_entry(Path("head.npz"), files["head.npz"]),
            **changes,
        }
    )
    return seal(manifest, files, key)


def seal(manifest: Manifest, files: dict[str, bytes], key: SigningKey | None) -> Bundle:
    content = manifest.to_bytes()
    signatures = (key.sign("manifest", content),) if key is not None else ()
    return make_bundle(content, lambda entry: files[entry.file], signatures)


def write_directory(bundle: Bundle, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(bundle.manifest_bytes)
    for name, content in bundle.files.items():
        (folder / name).write_bytes(content)
    return folder


class OfflineAnswers:
    """What each deployment must answer, computed here with the real interpreter: a mixed answer fits none."""

    def __init__(self, folders: list[Path]) -> None:
        self._parts = {}
        for folder in folders:
            deployment = open_deployment(folder)
            with contextlib.suppress(UserError):  # one that fails its self-test may not answer at all
                self._parts[deployment.id] = self._open(deployment)
        self._known: dict[tuple[str, bytes], dict[int, NDArray[np.float32]]] = {}

    @staticmethod
    def _open(deployment: DeploymentDirectory) -> tuple[list, MergeHead]:
        manifest = deployment.manifest
        slots = [open_student(deployment, i, "auto", "auto", 1) for i in range(len(manifest.students))]
        return slots, MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, len(manifest.classes))

    def fits(self, prediction: PredictionMessage, image: NDArray[np.uint8]) -> bool:
        if prediction.deployment not in self._parts:
            return False
        slots, head = self._parts[prediction.deployment]
        key = (prediction.deployment, image.tobytes())
        if key not in self._known:
            features = {}
            for slot in slots:
                raw = slot.runtime.run(image)
                message = feature_message(0, raw, slot.runtime.quantization, slot.student.codec, 0, 0)
                codec, travelled = slot.student.codec, decode_features(encode_features(message))
                features[slot.student.index] = travelled.with_ranges(codec.channel_ranges, codec.bits).features
            self._known[key] = features
        present = {i: f for i, f in self._known[key].items() if i in prediction.present}
        logits, temperature = head.merge(present)
        expected = probabilities(logits, temperature)
        return bool(np.allclose(expected, np.asarray(prediction.probabilities, np.float32), atol=1e-4))
