"""nonn-trainer demo: train on handwritten digits, then classify them over MQTT with real processes."""

import argparse
import contextlib
import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.mqtt_link import Message, MqttLink
from edge_agent.protocol.topics import SiteTopics
from trainer.demo.processes import ProcessGroup, script, start_broker

if TYPE_CHECKING:
    from rich.console import Console

STUDENTS = 3
VICTIM = "agent-1"
SITE, SOURCE = "demo", "digits"
# Slow enough that the killed agent's absence and return both fall into the evaluation, on any machine.
FRAMES_PER_S = 60.0
# Ample, so that a busy machine does not pass for a missing student.
DEADLINE_MS = 1000
FLEET_TIMEOUT_S = 60
DEFAULT_FOLDER = Path("runs/demo")
DASHBOARD_PORT = 8080
SHOWN_FRAMES_PER_S = 4.0  # what an eye follows


@dataclass(frozen=True)
class DemoFolders:
    """Where the demo keeps its parts."""

    root: Path

    @property
    def run(self) -> Path:
        """The trainer's run directory."""
        return self.root / "run"

    @property
    def deployment(self) -> Path:
        """What the trainer exported."""
        return self.run / "export"

    @property
    def report(self) -> Path:
        """What the evaluation over MQTT measured."""
        return self.root / "over-mqtt.json"


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add `demo` to the trainer's commands."""
    parser = commands.add_parser(
        "demo",
        help="the whole chain on this machine in under a minute",
        description="Train on scikit-learn's digits, export, and classify over MQTT with 3 agents and a coordinator.",
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="work folder [runs/demo]")
    parser.add_argument(
        "--dashboard", nargs="?", const=DASHBOARD_PORT, type=int, metavar="PORT",
        help=f"then show the fleet at http://localhost:PORT until Ctrl-C, without training again [{DASHBOARD_PORT}]",
    )  # fmt: skip
    parser.set_defaults(job=run_demo)


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demo; exit 0 only if every frame got exactly one answer, equal to the offline one."""
    from rich.console import Console

    console = Console()
    folders = DemoFolders(arguments.out)
    _make_room(folders, keep_students=arguments.dashboard is not None)
    console.print("scikit-learn's handwritten digits, 8 x 8: 1,437 to learn from, 360 held out")
    console.rule("1-4  teacher, partition, 3 students, export")
    _train(folders)
    console.rule("5-6  3 agents and a coordinator answer over MQTT")
    with ProcessGroup(folders.root / "logs") as group:
        fleet = _start_fleet(folders, group, console, arguments.dashboard)
        _classify_over_mqtt(folders, group, console, fleet)
        report = json.loads(folders.report.read_text())
        console.rule("7  results")
        from trainer.demo.tables import print_tables

        print_tables(console, folders.run, folders.deployment, report, fleet.broker)
        code = _verdict(report, console)
        if arguments.dashboard is not None:
            _show(folders, group, console, fleet, arguments.dashboard)
    if arguments.dashboard is None:
        out = "" if arguments.out == DEFAULT_FOLDER else f" --out {arguments.out}"
        console.print(f"look at it in a browser: {script('nonn-trainer')} demo{out} --dashboard", soft_wrap=True)
    return code


def _make_room(folders: DemoFolders, keep_students: bool) -> None:
    if folders.root.exists():
        if not (folders.root / "logs").is_dir():
            raise UserError(f"{folders.root}: not a folder of an earlier demo; choose another with --out")
        shutil.rmtree(folders.root / "logs" if keep_students else folders.root)
    (folders.root / "logs").mkdir(parents=True)


def _train(folders: DemoFolders) -> None:
    command = [script("nonn-trainer"), "run", "--dataset", "digits", "--teacher", "cnn-32-64-64"]
    command += ["--student", "cnn-8-16-16", "--students", str(STUDENTS), "--name", "digits", "--out", str(folders.run)]
    command += ["--tvm", "none"]  # a minute that shows nothing: these students take 7 us anyway
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise UserError("the training ended early, see above", ExitCode(error.returncode)) from None


@dataclass(frozen=True)
class DemoFleet:
    """Where the fleet is."""

    broker: str
    port: int

    @property
    def environment(self) -> dict[str, str]:
        """Tells a program of ours where the site is."""
        return {"NONN_BROKER_HOST": "127.0.0.1", "NONN_BROKER_PORT": str(self.port), "NONN_SITE": SITE}


def _start_fleet(folders: DemoFolders, group: ProcessGroup, console: "Console", dashboard: int | None) -> DemoFleet:
    fleet = DemoFleet(*start_broker(group, folders.root))
    for student in range(STUDENTS):
        _start_agent(folders, group, fleet, student)
    coordinator = [script("nonn-coordinator"), "run", "--deployment", str(folders.deployment)]
    coordinator += ["--deadline-ms", str(DEADLINE_MS)]
    if dashboard is not None:
        coordinator += ["--dashboard-port", str(dashboard)]
    group.start("coordinator", coordinator, fleet.environment)
    console.print(f"broker: {fleet.broker} on 127.0.0.1:{fleet.port}; logs in {folders.root / 'logs'}")
    return fleet


def _start_agent(folders: DemoFolders, group: ProcessGroup, fleet: DemoFleet, student: int) -> None:
    command = [script("nonn-agent"), "run", "--deployment", str(folders.deployment), "--students", str(student)]
    # These students are so small that float32 is as fast; offline answers, to compare with, are those of int8.
    command += ["--precision", "int8", "--device", f"pi-{student}"]
    group.start(f"agent-{student}", command, fleet.environment)


def _classify_over_mqtt(folders: DemoFolders, group: ProcessGroup, console: "Console", fleet: DemoFleet) -> None:
    evaluation = [script("nonn-coordinator"), "evaluate", "--dataset", str(folders.run / "heldout.zip")]
    evaluation += ["--expect", str(folders.run / "evaluation" / "answers.npz"), "--out", str(folders.report)]
    evaluation += ["--rate", str(FRAMES_PER_S), "--window", "32", "--wait", str(FLEET_TIMEOUT_S), "--source", SOURCE]
    group.start("evaluate", [*evaluation, "--json"], fleet.environment)
    watch = AnswerWatch(fleet.port)
    frames = _heldout_images(folders)
    watch.wait_for(frames // 3, group)
    console.print(f"killing {VICTIM} after a third of the {frames} frames ...")
    group.kill(VICTIM)
    watch.wait_for(frames * 2 // 3, group)
    console.print(f"... and starting it again after two thirds ({watch.degraded} answers without it)")
    _start_agent(folders, group, fleet, int(VICTIM.removeprefix("agent-")))
    watch.wait_for(frames, group)
    group.wait("evaluate", timeout_s=30)


def _show(folders: DemoFolders, group: ProcessGroup, console: "Console", fleet: DemoFleet, port: int) -> None:
    """Held-out digits again and again, for people to watch, until Ctrl-C."""
    digits = [script("nonn-coordinator"), "evaluate", "--dataset", str(folders.run / "heldout.zip"), "--tell-labels"]
    digits += ["--rate", str(SHOWN_FRAMES_PER_S), "--source", SOURCE, "--json"]
    console.print(f"dashboard: http://localhost:{port}/  (Ctrl-C ends it)", soft_wrap=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            group.start("evaluate", digits, fleet.environment)
            while not group.finished("evaluate"):
                group.check()
                time.sleep(0.5)


class AnswerWatch:
    """Counts the answers of the demo's source as they pass the broker."""

    def __init__(self, port: int) -> None:
        self._link = MqttLink(BrokerSettings(port=port), "nonn-demo", [(SiteTopics(SITE).prediction(SOURCE), 1)])
        self.answers = 0
        self.degraded = 0

    def wait_for(self, answers: int, group: ProcessGroup) -> None:
        """Return after that many answers; UserError if none comes for a minute or a child ends."""
        last_progress = time.monotonic()
        while self.answers < answers:
            events = self._link.poll(0.2)
            for event in events:
                if isinstance(event, Message):
                    self.answers += 1
                    self.degraded += b'"result":"degraded"' in event.payload
                    last_progress = time.monotonic()
            if group.finished("evaluate"):
                return
            group.check()
            if time.monotonic() - last_progress > FLEET_TIMEOUT_S:
                raise UserError(f"no answer for {FLEET_TIMEOUT_S} s; see the logs", ExitCode.UNAVAILABLE)


def _heldout_images(folders: DemoFolders) -> int:
    import zipfile

    with zipfile.ZipFile(folders.run / "heldout.zip") as archive:
        return sum(name.endswith(".png") for name in archive.namelist())


def _verdict(report: dict[str, Any], console: "Console") -> int:
    faults = {key: report[key] for key in ("lost", "repeated", "different_from_offline") if report[key]}
    abandoned = report["results"].get("abandoned", 0)
    if abandoned:
        faults["abandoned"] = abandoned
    if faults:
        console.print(f"[red]FAILED[/]: {', '.join(f'{count} {what}' for what, count in faults.items())}")
        return ExitCode.FAILED
    console.print(f"[green]OK[/]: {report['frames']} frames, one answer each, all equal to the offline answers")
    return ExitCode.OK
