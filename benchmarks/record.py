"""Run a benchmark and keep what it printed, with everything that is needed to judge it.

    python benchmarks/record.py [--verdict] NAME COMMAND [ARGUMENT ...]
    python benchmarks/record.py [--verdict] --to FILE COMMAND [ARGUMENT ...]

Writes benchmarks/records/NAME.json, or FILE: the command, its output (Markdown), commit, versions, machine, load, time.
`make results` puts the output into the documents. A command that fails leaves the earlier record as it was. With
--verdict its exit status 1 says that a goal was missed: that is recorded too, the page says so, and this ends with 1.
"""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

RECORDS = Path(__file__).parent / "records"
# One record after the other changes these, and no measurement.
WRITTEN_BY_RECORDS = (":(top,exclude)benchmarks/records", ":(top,exclude)README.md", ":(top,exclude,glob)docs/*.md")
MISSED = 1  # the exit status of a benchmark that ran to its end and says no
PACKAGES = (
    "nonn-edge", "numpy", "ai-edge-litert", "tensorflow-cpu", "tensorflow", "keras", "apache-tvm", "onnxruntime",
    "ncnn", "paho-mqtt", "networkx",
)  # fmt: skip


def main() -> int:
    """Run, show, keep."""
    words = sys.argv[1:]
    has_verdict = words[:1] == ["--verdict"]
    words = words[has_verdict:]
    is_file = words[:1] == ["--to"]
    target, *command = words[is_file:] or [""]
    if not command or not target or target.startswith("-"):
        print(__doc__)
        return 64
    file = Path(target) if is_file else RECORDS / f"{target}.json"
    load, started = os.getloadavg()[0], time.perf_counter()
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(finished.stdout, end="")
    missed = has_verdict and finished.returncode == MISSED and finished.stdout.strip() != ""
    if finished.returncode and not missed:
        print(f"error: {shlex.join(command)} ended with {finished.returncode}; nothing recorded", file=sys.stderr)
        return 1
    file.parent.mkdir(exist_ok=True)
    content = {
        "command": shown(command),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "load_average_before": round(load, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "versions": versions(),
        **({"missed": True} if missed else {}),
        "output": without_folders(finished.stdout.strip()),
    }
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {file}", file=sys.stderr)
    return int(missed)


def shown(command: list[str]) -> str:
    """The command as anybody would type it: programs without folders, files by their last two names."""
    words = [Path(command[0]).name, *(shortened(word) for word in command[1:])]
    return shlex.join(words).replace("python3 ", "python ", 1)


def shortened(word: str) -> str:
    """`/long/way/runs/cifar10` -> `runs/cifar10`; relative paths stay."""
    path = Path(word)
    return "/".join(path.parts[-2:]) if path.is_absolute() else word


def without_folders(text: str) -> str:
    """Whatever a command printed, its files in this user's folders by their last two names only."""
    own = "|".join(re.escape(str(folder)) for folder in (Path.cwd(), Path.home(), Path(tempfile.gettempdir())))
    return re.sub(rf"(?<![\w./-])(?:{own})(?:/[\w.+-]+)+", lambda found: shortened(found[0]), text)


def commit() -> str:
    """Short commit of the tree, marked where files differ from it that a measurement could depend on."""
    head = git("rev-parse", "--short=10", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", *WRITTEN_BY_RECORDS)
    return f"{head}{'+' if changed else ''}" if head else "no git"


def git(*words: str) -> str:
    """Return what git says of this tree; nothing where there is none."""
    command = ["git", "-C", str(Path(__file__).parent), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def machine() -> str:
    """Processor, cores and system, as far as it tells."""
    model = next(
        (line.split(":", 1)[1].strip() for line in cpu_lines() if line.startswith(("model name", "Model"))), ""
    )
    return f"{model or platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def cpu_lines() -> list[str]:
    """/proc/cpuinfo, where there is one."""
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
