#!/usr/bin/env python3
"""The pictures of docs/install.md: its commands are run as they stand, and what a terminal shows of them is drawn.

The three Pis are their cards' programs, run as processes of this machine; the card in the reader is a file. As root, in
mounts of its own, where pi-hub.local is this machine (needs mosquitto):

  unshare --mount .venv/bin/python .ci/install_pictures.py dist/nonn-edge.img.zst
"""

import io
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

from firmware_images.first_boot.card_deployment import install_deployment
from firmware_images.first_boot.device_files import AGENT_CONFIG, BROKER_CONFIG, COORDINATOR_CONFIG
from firmware_images.first_boot.provision import DeviceFolders, apply_card, write_problems

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURES = REPOSITORY / "docs/images"
EXAMPLE = REPOSITORY / "docs/examples/cifar10-2x-wrn-16-1"
COLUMNS = 118
CARD_BYTES = 8 * 10**9
DEVICES = ("pi-hub", "pi-left", "pi-right")
PATIENCE_S = 60.0
OPERATOR = "--config nonn-site/clients/operator/operator.toml"


def shown(command: str, answer: bytes = b"") -> str:
    """Run a command in a terminal of its own; return what the terminal shows, colours included."""
    words = [word for word in shlex.split(command) if word != "sudo"]
    terminal, program_end = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    ends = {"stdin": program_end, "stdout": program_end, "stderr": program_end}
    process = subprocess.Popen(words, **ends, env=environment, start_new_session=True)
    os.close(program_end)
    written = bytearray()
    while select.select([terminal], [], [], PATIENCE_S)[0]:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is gone
            break
        written += part
        if answer and written.rstrip().endswith(b"[y/N]"):
            os.write(terminal, answer)
            answer = b""
    process.wait()
    os.close(terminal)
    # A line that was written over and over shows its last state.
    lines = re.sub(r"\r+\n", "\n", written.decode(errors="replace")).split("\n")
    return "\n".join(re.sub(r"^.*\r(?=.)", "", line) for line in lines).rstrip()


def piped(command: str) -> str:
    """Run a command whose output goes into a file."""
    program, *words = shlex.split(command)
    done = subprocess.run(
        [Path(sys.executable).parent / program, *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": str(COLUMNS)},
    )
    return (done.stdout + done.stderr).rstrip()


def draw(name: str, title: str, *commands: str, answer: bytes = b"") -> None:
    """Run commands one after the other and draw the terminal."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for command in commands:
        console.print(Text(f"$ {command}", style="bold"), soft_wrap=False)
        # The progress of a deployment moves up and down: its plain form has one line for each step.
        said = piped(command) if " deploy " in command else shown(command, answer)
        console.print(Text.from_ansi(said))
    console.save_svg(str(PICTURES / f"{name}.svg"), title=title)
    print(f"{name}.svg: {len(commands)} commands", flush=True)


def device_root(name: str, card: str, work: Path) -> DeviceFolders:
    """Apply a card as the device's first boot does, below a folder; its problems are on its card."""
    folders = DeviceFolders(work / "fat" / name, work / "devices" / name, owners=False)
    folders.card.mkdir(parents=True)
    (folders.root / "usr/share").mkdir(parents=True)
    (folders.root / "usr/share/zoneinfo").symlink_to("/usr/share/zoneinfo")
    (folders.card / "nonn-edge.toml").write_text(card)
    install_deployment(EXAMPLE, folders.root)
    (folders.root / "run/nonn-edge").mkdir(parents=True)
    write_problems(folders, nullcontext, apply_card(folders, nullcontext, datetime.now(UTC)).problems)
    return folders


def programs_of(root: Path) -> list[list[str]]:
    """Return what a device's units start, with its files below `root`."""
    commands = []
    if (root / BROKER_CONFIG).exists():
        broker = (root / BROKER_CONFIG).read_text().replace(" /etc/", f" {root}/etc/")
        (root / "mosquitto.conf").write_text(f"{broker}persistence_location {root}/\nuser root\n")
        commands.append(["mosquitto", "-c", str(root / "mosquitto.conf")])
    for config, program in ((COORDINATOR_CONFIG, "coordinator.cli"), (AGENT_CONFIG, "edge_agent.cli")):
        if (root / config).exists():
            settings = root / Path(config).name
            settings.write_text((root / config).read_text().replace('"/', f'"{root}/'))
            commands.append([sys.executable, "-m", program, "run", "--config", str(settings)])
    return commands


def main() -> int:
    """Make all pictures."""
    image = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        work = Path(folder)
        hosts = work / "hosts"
        hosts.write_text(Path("/etc/hosts").read_text() + "127.0.0.1 pi-hub.local\n")
        subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
        os.chdir(work)
        (work / "docs").symlink_to(REPOSITORY / "docs")
        (work / "dist").symlink_to(image.parent)
        make_site(stack, work, image)
    return 0


def make_site(stack: ExitStack, work: Path, image: Path) -> None:
    """Go through the page from top to bottom."""
    draw(
        "install-site", "2. The site", "nonn-coordinator init nonn-site --site home --broker-host pi-hub.local",
        "nonn-coordinator device add pi-hub --role both --students 0",
        "nonn-coordinator device add pi-left --students 1",
        "nonn-coordinator device add pi-right --students auto",
        "nonn-coordinator device list",
    )  # fmt: skip
    cards = {name: (work / f"nonn-site/cards/{name}/nonn-edge.toml").read_text() for name in DEVICES}
    with (work / "card").open("wb") as card:
        card.truncate(CARD_BYTES)
    reader = Path("/dev/sdX")
    reader.symlink_to(work / "card")
    stack.callback(reader.unlink)
    draw(
        "install-card", "3. The cards",
        f"sudo nonn-image flash dist/{image.name} /dev/sdX --settings nonn-site/cards/pi-hub/nonn-edge.toml",
        answer=b"y\n",
    )  # fmt: skip
    wrong = cards["pi-right"] + '\n[wifi]\nssid = "Home"\npsk = "12345678"\ncountry = "UK"\n'
    device_root("pi-wrong", wrong.replace("auto", "first"), work)
    os.chdir(work / "fat/pi-wrong")
    draw("install-error", "4. A card that was wrong, back in the PC", "ls", "cat nonn-edge-error.txt")
    os.chdir(work)
    for name in DEVICES:
        for command in programs_of(device_root(name, cards[name], work).root):
            log = stack.enter_context((work / f"{name}-{command[-3]}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
    deadline = time.monotonic() + PATIENCE_S
    while shown(f"nonn-coordinator status {OPERATOR}").count("online") < len(DEVICES):
        if time.monotonic() > deadline:
            raise SystemExit("the devices did not come online")
    stripes = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(stripes).resize((256, 256), Image.Resampling.BICUBIC).save(work / "photo.jpg")
    draw(
        "install-look", "5. Look", f"nonn-coordinator status {OPERATOR}", f"nonn-coordinator doctor {OPERATOR}",
        f"nonn-coordinator classify photo.jpg {OPERATOR}",
    )  # fmt: skip
    draw(
        "install-students", "6. New students",
        "nonn-coordinator bundle docs/examples/cifar10-2x-wrn-16-1 --version 2 --key nonn-site/keys/deployment.key "
        "--out students.nonn",
        "nonn-coordinator bundle verify students.nonn --trusted-keys nonn-site/keys/trusted-keys",
        f"nonn-coordinator deploy students.nonn --wait {OPERATOR}",
    )  # fmt: skip
    draw(
        "install-later", "Later", "nonn-coordinator device add wall-panel --role viewer",
        "nonn-coordinator device renew pi-left",
        "nonn-coordinator device revoke pi-right",
        "nonn-coordinator device list",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
