"""The deployment: one immutable set of K students and their head. docs/protocol.md, section 7."""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.feature_codec import MAX_FEATURE, ChannelRanges

# 2 says that features travel with ranges per channel; all else is still written as 1, which older programs read.
SCALAR_SCHEMA: Literal[1] = 1
CHANNELS_SCHEMA: Literal[2] = 2
MAX_MANIFEST_BYTES = 1_000_000  # half of mosquitto 2.1's default packet limit
MAX_FILTERS = 65_535  # a feature message counts its features in 16 bits
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Part):
    """One file beside the manifest, with its exact length and hash."""

    file: FileName
    size_bytes: int = Field(gt=0)
    sha256: Sha256

    def check(self, content: bytes) -> bytes:
        """Return `content` if it is this file; ManifestError otherwise."""
        self.check_digest(len(content), hashlib.sha256(content).hexdigest())
        return content

    def check_digest(self, size_bytes: int, digest: str) -> None:
        """ManifestError unless a file of this length and sha256 is the one listed."""
        if size_bytes != self.size_bytes:
            raise ManifestError(f"{self.file}: {size_bytes} bytes, the manifest says {self.size_bytes}")
        if digest != self.sha256:
            raise ManifestError(f"{self.file}: sha256 {digest[:16]}..., the manifest says {self.sha256[:16]}...")


class Artifact(FileEntry):
    """A student for one engine, precision and target."""

    engine: Literal["tflite", "tvm"]
    precision: Literal["float32", "float16", "dynamic", "int8"]
    target: str = "any"
    engine_version: str = ""


class InputShape(_Part):
    """Images that the students take: uint8, RGB or grey."""

    height: int = Field(gt=0, le=1024)
    width: int = Field(gt=0, le=1024)
    channels: Literal[1, 3]


class CodecRanges(_Part):
    """Each channel's real value of code 0, and the step from code to code, or from square to square."""

    low: tuple[float, ...] = Field(min_length=1)
    step: tuple[float, ...] = Field(min_length=1)
    curve: Literal["linear", "square"] = "linear"


@lru_cache(maxsize=256)  # one for every student of a deployment; asked for with every message
def _arrays_of(ranges: CodecRanges) -> ChannelRanges:
    with np.errstate(over="ignore"):  # what overflows is refused as infinite
        low, step = np.array(ranges.low, np.float32), np.array(ranges.step, np.float32)
        return ChannelRanges(low, step, ranges.curve == "square")


class Codec(_Part):
    """How features travel. With `ranges`, those of every artifact; without, int8 artifacts bring their own scale."""

    encoding: Literal["float32", "int8", "int4"] = "int8"
    scale: float = Field(default=1.0, gt=0)
    zero_point: int = Field(default=-128, ge=-128, le=127)
    ranges: CodecRanges | None = None
    deflate: bool = Field(default=False, description="agents deflate where that makes the message shorter")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.encoding == "int4") > (self.ranges is not None):
            raise ValueError("codec: int4 needs ranges")
        if self.encoding == "float32" and self.ranges is not None:
            raise ValueError("codec: float32 has no ranges")
        if self.deflate and self.ranges is None:
            raise ValueError("codec: deflate needs ranges")
        ranges = self.channel_ranges  # finite numbers, positive steps, as many of one as of the other
        if ranges is not None and not ranges.largest(self.bits) <= MAX_FEATURE:
            raise ValueError(f"codec: ranges reach beyond {MAX_FEATURE:.0f}")
        return self

    @cached_property  # asked for with every message
    def channel_ranges(self) -> ChannelRanges | None:
        """The ranges as arrays (width,), float32."""
        return None if self.ranges is None else _arrays_of(self.ranges)

    @cached_property
    def bits(self) -> int:
        """Bits of a feature: 32, 8 or 4."""
        return {"float32": 32, "int8": 8, "int4": 4}[self.encoding]


class Golden(_Part):
    """What the student must answer to the golden input: features (width,), and how far off it may be."""

    features: tuple[float, ...]
    tolerance: float = Field(gt=0)


class Student(_Part):
    """One role of the deployment: its partition of the teacher's filters and its artifacts."""

    index: int = Field(ge=0, lt=256)
    network: str
    filters: tuple[int, ...] = Field(min_length=1, description="the partition, ascending")
    width: int = Field(gt=0, le=MAX_FILTERS)
    parameters: int = Field(gt=0)
    macs: int = Field(gt=0, description="multiply-accumulates for one image")
    artifacts: tuple[Artifact, ...] = Field(min_length=1)
    codec: Codec
    golden: Golden

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.filters) != self.width or len(self.golden.features) != self.width:
            raise ValueError(
                f"student {self.index}: {len(self.filters)} filters and {len(self.golden.features)} golden features, "
                f"expected width {self.width} of both"
            )
        ranges = self.codec.channel_ranges
        if ranges is not None and ranges.width != self.width:
            raise ValueError(f"student {self.index}: codec with {ranges.width} ranges, expected {self.width}")
        return self


class Manifest(_Part):
    """The whole deployment."""

    schema_: Literal[1, 2] = Field(default=SCALAR_SCHEMA, alias="schema")
    name: str = Field(min_length=1, max_length=100)
    version: int = Field(
        gt=0, description="grows with every deployment of a site; no downgrade without a signed rollback"
    )
    created: datetime
    teacher: str
    classes: tuple[str, ...] = Field(min_length=2, max_length=1000)
    input: InputShape
    filters: int = Field(gt=0, le=MAX_FILTERS, description="filters of the teacher's LCONV")
    students: tuple[Student, ...] = Field(min_length=1)
    head: FileEntry
    golden_input: FileEntry
    graph: FileEntry | None = Field(default=None, description="strongest edges of the filter graph, to look at")
    metrics: dict[str, float] = {}
    minimum_agent_version: str = "0.1.0"
    expires: datetime | None = None

    @field_validator("students")
    @classmethod
    def _indices_in_order(cls, students: tuple[Student, ...]) -> tuple[Student, ...]:
        if [student.index for student in students] != list(range(len(students))):
            raise ValueError("student indices are not 0, 1, 2, ...")
        return students

    @model_validator(mode="after")
    def _schema_says_how_features_travel(self) -> Self:
        if self.schema_ != self.schema_for(self.students):
            raise ValueError(f"schema {self.schema_}, expected {self.schema_for(self.students)} for these codecs")
        return self

    @model_validator(mode="after")
    def _partitions_cover_the_filters(self) -> Self:
        used = sorted(f for student in self.students for f in student.filters)
        if used != list(range(self.filters)):
            raise ValueError(f"the partitions do not cover the {self.filters} filters exactly once")
        names = [entry.file for entry in self.files()]
        if len(set(names)) != len(names) or "manifest.json" in names:
            raise ValueError("two entries name the same file")
        expected = self.input.height * self.input.width * self.input.channels
        if self.golden_input.size_bytes != expected:
            raise ValueError(f"golden input has {self.golden_input.size_bytes} bytes, expected {expected}")
        return self

    @staticmethod
    def schema_for(students: Iterable[Student]) -> Literal[1, 2]:
        """2 if a codec has ranges per channel."""
        return CHANNELS_SCHEMA if any(s.codec.ranges is not None for s in students) else SCALAR_SCHEMA

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """How each student's features travel, in student order."""
        return tuple(student.codec for student in self.students)

    @property
    def widths(self) -> tuple[int, ...]:
        """Feature widths in student order."""
        return tuple(student.width for student in self.students)

    def files(self) -> list[FileEntry]:
        """Every file of the deployment except the manifest."""
        graph = () if self.graph is None else (self.graph,)
        return [self.head, self.golden_input, *graph, *(a for student in self.students for a in student.artifacts)]

    def to_bytes(self) -> bytes:
        """The canonical file: UTF-8 JSON, sorted keys, two spaces. Hash and signature are over these bytes."""
        content = self.model_dump(mode="json", by_alias=True)
        if self.graph is None:
            del content["graph"]  # so that deployments of before it existed keep their bytes, and their id
        for student in content["students"]:
            codec = student["codec"]
            for key in ("ranges", "deflate") if codec["ranges"] is None else ("scale", "zero_point"):
                del codec[key]
        return (json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def deployment_id(manifest_bytes: bytes) -> str:
    """First 16 hex digits of the manifest's sha256: names the deployment in topics and messages.

    >>> deployment_id(b"{}")
    '44136fa355b3678a'
    """
    return hashlib.sha256(manifest_bytes).hexdigest()[:16]


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest; ManifestError names the field and what was expected."""
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"manifest: {len(content)} bytes, expected at most {MAX_MANIFEST_BYTES}")
    try:
        return Manifest.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "manifest"
        raise ManifestError(f"manifest: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def file_entry(path: PurePosixPath, content: bytes) -> FileEntry:
    """Describe a file as it is."""
    return FileEntry(file=path.name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
