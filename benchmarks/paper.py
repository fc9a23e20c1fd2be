"""What the paper reports. Farcas et al., CVPR-W 2020: CIFAR-10, two students, one Raspberry Pi 3B+ for each row."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """Teacher, then student: accuracy in percent, parameters, milliseconds and millijoules of an image, and ratios."""

    networks: tuple[str, str]
    accuracy: tuple[float, float]
    parameters: tuple[float, float]
    latency_ms: tuple[float, float]
    energy_mj: tuple[float, float]
    parameters_ratio: float
    latency_ratio: float
    energy_ratio: float


ROWS = {
    "wrn": PaperRow(
        ("WRN-40-4", "WRN-16-1"), (96.78, 95.92), (8.9e6, 0.18e6), (1878, 150), (3430.67, 238.98), 49.89, 12.44, 14.36
    ),
    "vgg": PaperRow(("VGG-19", "VGG-11"), (93.00, 91.47), (20e6, 9.2e6), (847, 414), (436.27, 366.39), 2.16, 2.04, 1.2),
}
ABSTRACT = {"memory": 50, "latency": 33, "energy": 14}  # without saying of which pair
