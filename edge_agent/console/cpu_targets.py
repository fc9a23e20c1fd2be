"""Which machine code this CPU can run: names as in the manifest's `target`. Pure but for `this_cpu`."""

import platform
from dataclasses import dataclass
from pathlib import Path

ANY_TARGET = "any"

# What each target's code assumes beyond its architecture, in the words of /proc/cpuinfo.
# Cortex-A53 and A72 are Armv8.0: their code runs on every 64-bit Pi, only its schedule differs.
REQUIRED_FEATURES: dict[str, tuple[str, frozenset[str]]] = {
    "x86_64-v3": ("x86_64", frozenset({"avx2", "fma", "bmi2"})),
    "x86_64-v4": ("x86_64", frozenset({"avx2", "fma", "bmi2", "avx512f", "avx512bw", "avx512dq", "avx512vl"})),
    "aarch64-cortex-a53": ("aarch64", frozenset()),
    "aarch64-cortex-a72": ("aarch64", frozenset()),
    "aarch64-cortex-a76": ("aarch64", frozenset({"asimddp", "asimdhp", "atomics"})),
}


@dataclass(frozen=True)
class CPUFeatures:
    """Architecture as `uname -m` says it, and the feature words of /proc/cpuinfo."""

    machine: str
    features: frozenset[str]


def why_unfit(target: str, cpu: CPUFeatures) -> str | None:
    """Say why code for `target` can't run on `cpu`; None if it can.

    >>> why_unfit("aarch64-cortex-a76", CPUFeatures("aarch64", frozenset({"asimd"})))
    'needs asimddp, asimdhp, atomics'
    """
    if target == ANY_TARGET:
        return None
    if target not in REQUIRED_FEATURES:
        return f"unknown target, expected one of any, {', '.join(REQUIRED_FEATURES)}"
    machine, features = REQUIRED_FEATURES[target]
    if machine != cpu.machine:
        return f"needs {machine}, this is {cpu.machine}"
    missing = features - cpu.features
    return f"needs {', '.join(sorted(missing))}" if missing else None


def this_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> CPUFeatures:
    """Read what this machine is; without /proc/cpuinfo only its architecture."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        text = ""
    return CPUFeatures(platform.machine(), parse_features(text))


def parse_features(cpuinfo: str) -> frozenset[str]:
    r"""Feature words of the first core: x86 says `flags`, Arm `Features`.

    >>> sorted(parse_features("processor : 0\nFeatures\t: fp asimd\n"))
    ['asimd', 'fp']
    """
    for line in cpuinfo.splitlines():
        key, _, words = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(words.split())
    return frozenset()
