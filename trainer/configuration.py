"""What a run is made of: chosen once, kept in run.json, checked by pydantic."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["float32", "float16", "dynamic", "int8"]
Share = Annotated[float, Field(ge=0, lt=1)]


# Tiny scans of digits: a mirrored 2 is no 2, and 4 pixels would be half the image.
DATASET_DEFAULTS: dict[str, dict[str, object]] = {
    "digits": {"crop_pad": 1, "flip": False, "batch": 64, "teacher_passes": 30, "passes": 30},
}


class RunConfiguration(BaseModel):
    """Everything that decides the result of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field(description="cifar10, digits, or a folder or zip of train/CLASS/*.png and test/CLASS/*.png")
    teacher: str = Field(description="a network's name (trained in the stage `teacher`) or a .keras file")
    lconv: str | None = Field(default=None, description="the teacher's LCONV layer; without it its last feature map")
    student: tuple[str, ...] = Field(default=("wrn-16-1",), description="one network for all, or one per student")
    students: int = Field(default=2, ge=1, le=255, description="K, the number of devices")
    seed: int = Field(default=0, ge=0)
    split_seed: int = Field(default=0, ge=0, description="fixes the validation split")
    view_seed: int = Field(
        default=0, ge=0, description="fixes the augmented views, which runs with several seeds share"
    )
    image_size: tuple[int, int] | None = Field(default=None, description="height,width to scale all images to")

    teacher_passes: int = Field(default=30, ge=1, description="passes over the training images, stage teacher")
    teacher_small_passes: int = Field(
        default=0, ge=0, description="how many of them, the first, see images at 3/4 size"
    )
    teacher_rate: float = Field(default=0.1, gt=0, description="highest learning rate, stage teacher")
    teacher_smoothing: Share = Field(default=0.0, description="label smoothing, stage teacher")
    teacher_cutout: int = Field(
        default=0, ge=0, description="side of the grey square put into each image, stage teacher"
    )

    views: int = Field(default=4, ge=1, le=64, description="fixed augmented views of each training image")
    crop_pad: int = Field(default=4, ge=0, le=64, description="pixels of reflection padding before a random crop")
    flip: bool = Field(default=True, description="mirror half of the views")
    teacher_engine: Literal["auto", "keras", "tflite"] = Field(
        default="auto", description="what runs the teacher; auto takes tflite (8-bit weights) where Keras needs minutes"
    )

    partition: Literal["communities", "random", "contiguous"] = "communities"
    top_k: int | None = Field(default=None, ge=1, description="most active filters of an image that count")

    passes: int = Field(default=20, ge=1, description="passes over the training images, stage distill")
    small_passes: int = Field(default=0, ge=0, description="how many of them, the first, see images at 3/4 size")
    batch: int = Field(default=128, ge=2)
    rate: float = Field(default=0.1, gt=0, description="highest learning rate of the one-cycle schedule")
    weight_decay: float = Field(default=5e-4, ge=0)
    temperature: float = Field(default=4.0, gt=0, description="softens teacher and students alike")
    label_weight: float = Field(default=0.1, ge=0, le=1, description="share of the labels' cross-entropy")
    transfer_weight: float = Field(default=10.0, ge=0, description="weight of the activation transfer")
    failout: Share = Field(default=0.1, description="chance that a student is dropped from an image in training")
    bfloat16: bool = Field(default=False, description="mixed bfloat16")

    precisions: tuple[Precision, ...] = Field(
        default=("float32", "int8"), min_length=1, description="any of float32, float16, dynamic, int8"
    )
    tvm: tuple[str, ...] = Field(
        default=("auto",),
        min_length=1,
        description="CPUs to compile students for with TVM: auto, none, host, aarch64-cortex-a53 and others",
    )
    feature_encoding: Literal["auto", "float32", "int8", "int4"] = Field(
        default="auto", description="how features travel; auto takes the shortest that loses too little"
    )
    feature_points: float = Field(
        default=0.1, ge=0, le=100, description="points of accuracy that the encoding of features may cost"
    )
    name: str = Field(default="nonn", description="the deployment's name")
    version: int = Field(default=1, ge=1, description="the deployment's version")

    def student_networks(self) -> tuple[str, ...]:
        """One network name per student."""
        return self.student * self.students if len(self.student) == 1 else self.student
