"""The papers' ratios of teacher to student, each beside ours: the figures of one run and one engines benchmark.

    python benchmarks/paper_ratios.py RUN [--engines benchmarks/results/engines.json]

Measures nothing: reads RUN/evaluation.json and what `engines.py --teacher` has written. Paper: Farcas et al., CVPR-W
2020, table I (WRN-40-4 to WRN-16-1, Raspberry Pi 3B+), and its abstract. Prints Markdown.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ENGINES = Path(__file__).parent / "results" / "engines.json"
SAME_ENGINE = "ai-edge-litert"  # the agent's usual engine; the span is over all of them


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--engines", type=Path, default=ENGINES)
    arguments = parser.parse_args()
    found = json.loads((arguments.run / "evaluation.json").read_text())
    pairs = json.loads(arguments.engines.read_text())["teacher_against_student"]
    parameters = found["teacher_parameters"] / max(student["parameters"] for student in found["students"])
    latency = _span(pairs, "latency")
    rows = [
        ("parameters", "49.89x, abstract 50x", f"{parameters:.2f}x",
         "students here share all filters of the teacher; the paper's leave most out, so its bridges are narrower"),
        ("latency of one image", "12.44x, abstract 33x", latency, "CPU time, one thread, one PC"),
        ("memory beyond the interpreter's", "50x (of parameters)", _span(pairs, "network_rss"),
         "peak; activations of the first layers are as large for both"),
        ("peak memory of the process", "-", _span(pairs, "peak_rss"), "the interpreter is most of the student's"),
        ("bytes of the artifact", "50x (of parameters)", _span(pairs, "file"), "float32; TVM's holds its code, too"),
        ("energy", "14.36x", f"{latency}, *estimated*", "no meter: CPU time at the same power, as latency"),
    ]  # fmt: skip
    print("| teacher / student | paper | ours: LiteRT (all engines) | |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 0


def _span(pairs: list[dict[str, Any]], figure: str) -> str:
    """LiteRT's ratio, and the smallest and largest of all engines."""
    values = [pair[figure] for pair in pairs]
    usual = next(pair[figure] for pair in pairs if pair["engine"].startswith(SAME_ENGINE))
    return f"{usual:.1f}x ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    sys.exit(main())
