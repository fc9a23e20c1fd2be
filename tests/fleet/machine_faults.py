"""Faults of the machine: its clock, its disk, its memory. Each leaves the fleet as it was."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from chaos import STEADY_S, Chaos


def clock_jumps(chaos: Chaos) -> None:
    """pi-1 and the coordinator live with a clock of their own: 20 years back, then 30 ahead, then back again."""
    shim, offset = _clock_shim(chaos.folder)
    offset.write_text("-630720000")
    os.environ["LD_PRELOAD"] = str(shim)
    os.environ["CLOCK_OFFSET_FILE"] = str(offset)
    for name in ("pi-1", "coordinator"):
        chaos.fleet.kill(name)

    def act() -> None:
        chaos.start_agent(1)
        chaos.fleet.start_coordinator(*chaos.coordinator_flags)

    chaos.deaf(act)
    for seconds in ("946080000", "-946080000", "0"):
        offset.write_text(seconds)
        chaos.load.run(1.5)
    for name in ("LD_PRELOAD", "CLOCK_OFFSET_FILE"):
        del os.environ[name]


def full_disk(chaos: Chaos) -> None:
    """Journal and log of the coordinator on a file system without a free byte."""
    place = chaos.folder / "full"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=True)

    def act() -> None:
        chaos.end("coordinator")
        folder, chaos.fleet.folder = chaos.fleet.folder, place
        chaos.fleet.start_coordinator("--journal", str(place / "journal"), "--log-level", "debug")
        chaos.fleet.folder = folder

    chaos.deaf(act)
    with suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    chaos.load.run(STEADY_S)

    def back() -> None:
        chaos.end("coordinator")
        subprocess.run(["umount", str(place)], check=True)
        chaos.fleet.start_coordinator(*chaos.coordinator_flags)

    chaos.deaf(back)


def memory_pressure(chaos: Chaos) -> None:
    """pi-2 shares a memory limit with a program that eats all of it; what the kernel kills is started again."""
    group = Path("/sys/fs/cgroup/memory/nonn-faults")
    group.mkdir(exist_ok=True)
    agent = chaos.fleet.running["pi-2"]
    eater = subprocess.Popen(["sleep", "60"])
    try:
        (group / "memory.limit_in_bytes").write_text(str(150 * 2**20))
        for program in (agent, eater):
            (group / "cgroup.procs").write_text(str(program.pid))
        eater.kill()
        hungry = "import time\na = []\nwhile True:\n    a.append(bytearray(2**20)); time.sleep(0.002)"
        joins = f"open('{group}/cgroup.procs', 'w').write('0')"
        eater = subprocess.Popen([sys.executable, "-c", f"{joins}\n{hungry}"], stderr=subprocess.DEVNULL)
        chaos.load.run(2 * STEADY_S)
        chaos.note = (
            "the kernel killed the agent" if agent.poll() is not None else "the kernel killed the other program"
        )
        if agent.poll() is not None:
            chaos.start_agent(2)
            chaos.wait_online("pi-2")
    finally:
        eater.kill()
        eater.wait()
        for pid in (group / "cgroup.procs").read_text().split():
            Path("/sys/fs/cgroup/memory/cgroup.procs").write_text(pid)
        with suppress(OSError):
            group.rmdir()


def _clock_shim(folder: Path) -> tuple[Path, Path]:
    """A library that shifts CLOCK_REALTIME by the seconds in a file, read anew at every call."""
    source, shim, offset = folder / "shim.c", folder / "shim.so", folder / "offset"
    source.write_text(
        """#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <sys/syscall.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) {
  int result = syscall(SYS_clock_gettime, id, t);
  const char *name = getenv("CLOCK_OFFSET_FILE");
  FILE *f = (id == CLOCK_REALTIME && name) ? fopen(name, "r") : 0;
  if (f) { long s = 0; if (fscanf(f, "%ld", &s) == 1) t->tv_sec += s; fclose(f); }
  return result;
}
"""
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(shim), str(source)], check=True)
    return shim, offset
