"""A boot test of two cards, a hub and an agent, on a network of their own. The agent's power is cut and comes back."""

import json
import re
import shutil
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.student_slot import open_student
from firmware_images import programs
from firmware_images.boot_answers import compare_answers
from firmware_images.boot_coordinator import DEADLINE_MS, HUB, HubSite
from firmware_images.boot_hub import SLOW_COORDINATOR
from firmware_images.boot_inspection import DeviceShell
from firmware_images.boot_run import BootReport, BootRun, BootTestOptions
from firmware_images.boot_site import SiteObserver, free_port, write_card
from firmware_images.boot_test import CARD_BYTES, SSH_PORT
from firmware_images.card_report import inspect_card
from firmware_images.home_network import ROUTERS, Switch, router_command
from firmware_images.qemu_machine import Plug, RunningMachine, take_kernel

PARTNER = "edge-partner"  # the other card: an agent
NETWORKS = (*ROUTERS, "cable")
# Locally administered, and not QEMU's own: two cards with one address would be one.
MAC = {HUB: "52:54:00:6e:00:01", PARTNER: "52:54:00:6e:00:02"}
# Every Pi has Wi-Fi, wanted or not. The kernel's simulated radio finds no network, either.
UNUSED_WIFI = "modules_load=mac80211_hwsim mac80211_hwsim.radios=1"
UPDATE = 2  # version of the signed deployment; the hub's card brings version 1, the agent's none
FAILED_UNITS = "systemctl --failed --plain --no-legend --no-pager"
BROKER_LOG = "journalctl -u mosquitto -o cat --no-pager"


def pair_test(options: BootTestOptions, network: str) -> int:
    """Run the test; print what happens; exit code 1 if anything is not as it should be."""
    programs.require(["qemu-system-aarch64", "mcopy", "mosquitto", "e2fsck"])
    if options.deployment is None:
        raise UserError("boot-test needs --deployment, for the cards to have something to answer with")
    deployment = open_deployment(options.deployment)
    if len(deployment.manifest.students) < 2:
        raise UserError(f"--pair: {options.deployment} has one student; expected one for each card, or more")
    work = options.work.resolve() / f"pair-{network}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    pair = Pair(options, network, work, deployment, BootReport(f"pair, {network}"), HubSite(work, deployment.path))
    texts = pair.write_cards()
    try:
        pair.run()
    except UserError as error:
        pair.report.fail(str(error))
    for name, text in texts.items():
        pair.report.note(f"{name}:")
        inspect_card(pair.card(name), tomllib.loads(text)["broker"]["key"], pair.report, work)
    (work / "report.json").write_text(json.dumps(vars(pair.report), indent=1) + "\n")
    failures = pair.report.failures
    pair.report.note(f"{pair.report.machine}: {'failed: ' + '; '.join(failures) if failures else 'passed'}")
    return ExitCode.FAILED if failures else ExitCode.OK


class Pair:
    """Both cards, and what they are plugged into."""

    def __init__(
        self, options: BootTestOptions, network: str, work: Path, deployment: DeploymentDirectory, report: BootReport,
        site: HubSite,
    ) -> None:  # fmt: skip
        self.report = report
        self._options, self._network, self._work, self._deployment = options, network, work, deployment
        self._site = site
        ssh_port = free_port()
        self._shell = DeviceShell(work, ssh_port)
        self._ports = {site.port: site.port, ssh_port: SSH_PORT}
        indices = [student.index for student in deployment.manifest.students]
        self._students = {HUB: indices[:1], PARTNER: indices[1:]}

    def card(self, name: str) -> Path:
        """Where a device's card lies."""
        return self._work / f"{name}.img"

    def write_cards(self) -> dict[str, str]:
        """Write both cards; return their settings. The agent's card has no students: it takes what the site deploys."""
        hub_words = ["--role", "both", "--ssh-key", self._shell.public_key]
        texts = {
            HUB: self._site.card(HUB, self._students[HUB], *hub_words),
            PARTNER: self._site.card(PARTNER, self._students[PARTNER]),
        }
        write_card(self._options.image, self.card(HUB), texts[HUB], CARD_BYTES, self._deployment.path)
        write_card(self._options.image, self.card(PARTNER), texts[PARTNER], CARD_BYTES)
        return texts

    def run(self) -> None:
        """Build the network, and start the cards on it."""
        kernel = take_kernel(self.card(HUB), self._work)
        with ExitStack() as stack:
            switch = stack.enter_context(Switch())
            # Where the household's router leads nobody in, the hub has a second network, for us to see it.
            by_router = self._network == "router"
            if self._network in ROUTERS:
                command = router_command(self._network, switch.plug, self._ports if by_router else {})
                stack.enter_context(RunningMachine(command, self._work / "router.log"))
            stack.enter_context(self._site)
            observer = SiteObserver(self._site.login(), HUB, "device")
            stack.callback(observer.close)

            def power(name: str, watched: SiteObserver, ports: dict[int, int] | None) -> BootRun:
                slots = [open_student(self._deployment, n, "auto", "auto", 1) for n in self._students[name]]
                return BootRun(
                    self._options, self.report, self._work, self.card(name), kernel, self._deployment, self._site,
                    watched, slots, self._shell, ports, Plug(switch.plug, MAC[name]), UNUSED_WIFI,
                )  # fmt: skip

            hub = power(HUB, observer, None if by_router else self._ports)
            run_pair(hub, power(PARTNER, observer.beside(PARTNER), None))


def run_pair(hub: BootRun, partner: BootRun) -> None:
    """The hub, then the agent; a signed update for both; the agent's power goes and comes back."""
    with hub.started("hub") as hub_machine:
        if hub_machine is None or hub.shell is None:
            return
        hub.shell.run(SLOW_COORDINATOR)
        with partner.started("agent-first") as machine:
            if machine is None:
                return
            wanted = hub.site.deploy(UPDATE)
            if not (partner.updated(machine, wanted, "agent") and hub.updated(hub_machine, wanted, "hub")):
                return
            answer_together([hub, partner], machine, "agent-first start")
            _look(hub, hub.shell)
        answer_alone(hub, partner)
        with partner.started("agent-second") as machine:
            if machine is None:
                return
            if (found := partner.report.facts["agent-second start: deployment at birth"]) != wanted:
                partner.report.fail(f"agent-second start: runs {found}, expected {wanted}, as before the cut")
            answer_together([hub, partner], machine, "agent-second start")


def answer_together(runs: Sequence[BootRun], machine: RunningMachine, when: str) -> None:
    """Whole answers, of each card its own students' part."""
    hub = runs[0]
    if not _answered(hub, "complete", set()):
        hub.report.fail(f"{when}: no answer with all students")
        return
    hub.took(f"{when}: the hub merged the students of both cards", machine)
    for run in runs:
        expected = {slot.student.index for slot in run.slots}
        if run.observer.students != expected:
            run.report.fail(f"{when}: {run.observer.device} runs students {run.observer.students}, not {expected}")
    _compare(runs, "complete", when)


def answer_alone(hub: BootRun, partner: BootRun) -> None:
    """Without the other card's students, and told so."""
    cut_s = time.monotonic()
    absent = {slot.student.index for slot in partner.slots}
    hub.observer.wait_until(lambda: not partner.observer.is_online, cut_s + hub.options.timeout_s)
    offline_s = time.monotonic() - cut_s
    if partner.observer.is_online or not _answered(hub, "degraded", absent):
        hub.report.fail(f"agent's power cut: no degraded answer without students {absent}")
        return
    degraded_s = time.monotonic() - cut_s
    hub.report.seconds |= {"power cut: offline": round(offline_s, 1), "power cut: degraded": round(degraded_s, 1)}
    hub.report.note(f"agent's power cut: offline after {offline_s:.1f} s, degraded answers after {degraded_s:.1f} s")
    _compare([hub], "degraded", "agent's power cut")


def _answered(run: BootRun, result: str, absent: set[int]) -> bool:
    """Send frames until one is answered so; whether it was in time."""
    answers = run.observer.predictions
    before = set(answers)

    def is_answered() -> bool:
        fresh = [answers[frame] for frame in answers.keys() - before]
        return any(answer.result == result and set(answer.missing) == absent for answer in fresh)

    return run.sends_until(is_answered)


def _compare(runs: Sequence[BootRun], result: str, when: str) -> None:
    """Every card's features are this machine's, and every frame's answer is `result`."""
    hub = runs[0]
    frames: list[int] = []
    for run in runs:
        what = f"{when}, {run.observer.device}"
        frames += compare_answers(run.observer, run.slots, run.deployment, run.options.frames, run.report, what)
    answers = hub.observer.predictions
    hub.observer.wait_until(lambda: answers.keys() >= set(frames), time.monotonic() + 2 * DEADLINE_MS / 1000)
    counts = Counter(answers[frame].result if frame in answers else "none" for frame in frames)
    hub.report.facts[f"{when}: answers"] = dict(counts)
    hub.report.note(f"{when}: {len(frames)} frames: {', '.join(f'{n} {kind}' for kind, n in counts.items())}")
    if set(counts) != {result}:
        hub.report.fail(f"{when}: expected {len(frames)} {result} answers, got {dict(counts)}")


def _look(hub: BootRun, shell: DeviceShell) -> None:
    """No unit failed on the hub, and its broker saw the other card itself."""
    if failed := [line.split()[0] for line in shell.run(FAILED_UNITS).splitlines() if line]:
        hub.report.fail(f"hub: failed units: {', '.join(failed)}")
    address = came_from(shell.run(BROKER_LOG), PARTNER)
    hub.report.facts["agent's address"] = address
    if address is None:
        hub.report.fail(f"the broker's log does not say from where {PARTNER} came")
    hub.report.note(f"hub: {len(failed)} failed units; {PARTNER} came from {address}")


def came_from(broker_log: str, device: str) -> str | None:
    """Return from which address a device logged in last, as mosquitto wrote it down.

    >>> came_from("2026-11-28T23:28:22: New client connected from fe80::1:44414 as x-1 (p5, c1, k10, u'pi-a').", "pi-a")
    'fe80::1'
    """
    found = re.findall(rf"New client connected from (\S+):\d+ as \S+ \(.*u'{re.escape(device)}'\)", broker_log)
    return found[-1] if found else None
