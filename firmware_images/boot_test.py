"""nonn-image boot-test: the built image starts in QEMU, joins over TLS, takes its students and answers as we do."""

import json
import shutil
import tomllib
from contextlib import ExitStack

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.student_slot import open_student
from firmware_images import programs
from firmware_images.boot_agent import run_agent
from firmware_images.boot_coordinator import HUB, BootSite, HubSite
from firmware_images.boot_hub import AGENT_BESIDE, run_hub
from firmware_images.boot_inspection import DeviceShell
from firmware_images.boot_run import BootReport, BootRun, BootTestOptions
from firmware_images.boot_site import SiteObserver, free_port, write_card
from firmware_images.card_report import inspect_card
from firmware_images.qemu_machine import take_kernel

# QEMU's SD card wants a power of two; larger than the image, so that something is left to grow into.
CARD_BYTES = 2 * 1024**3
SSH_PORT = 22
# vivid is the kernel's virtual camera: the device reads it through the same calls as a USB camera.
CAMERA_MODULE = "modules_load=vivid"


def boot_test(options: BootTestOptions) -> int:
    """Run the test; print what happens; exit code 1 if anything is not as it should be."""
    programs.require(["qemu-system-aarch64", "mcopy", "mosquitto", "e2fsck"])
    if options.deployment is None:
        raise UserError("boot-test needs --deployment, for the device to have something to answer with")
    if options.role == "coordinator" and (options.camera or options.tvm_deployment):
        raise UserError("--role coordinator: no agent runs on this card; without --camera and --tvm-deployment")
    deployment = open_deployment(options.deployment)
    work = options.work.resolve() / options.machine
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    is_hub = options.role != "agent"
    # Whose answers are watched: the card's, or those of an agent on this machine where the card has none.
    device = {"agent": f"edge-{options.machine}", "both": HUB, "coordinator": AGENT_BESIDE}[options.role]
    report = BootReport(options.machine)
    card = work / "card.img"
    site = HubSite(work, options.deployment) if is_hub else BootSite(work, options.deployment)
    ports = {site.port: site.port} if is_hub else {}
    shell = None
    if is_hub or options.inspect or options.tvm_deployment:
        ssh_port = free_port()
        ports[ssh_port], shell = SSH_PORT, DeviceShell(work, ssh_port)
    words: list[object] = ["--time-zone", "Europe/Berlin"]
    words += ["--camera", "v4l2", "--frames-per-s", 1] if options.camera else []
    words += ["--ssh-key", shell.public_key] if shell else []
    words += ["--role", options.role]
    students = [student.index for student in deployment.manifest.students]
    text = site.card(HUB if is_hub else device, students, *words)
    write_card(options.image, card, text, CARD_BYTES, options.deployment if is_hub else None)
    with ExitStack() as stack:
        stack.enter_context(site)
        observer = SiteObserver(site.login(), device, "coordinator" if options.role == "coordinator" else "device")
        stack.callback(observer.close)
        kernel = take_kernel(card, work)
        slots = [open_student(deployment, s.index, "auto", "auto", 1) for s in deployment.manifest.students]
        modules = CAMERA_MODULE if options.camera else ""
        run = BootRun(
            options, report, work, card, kernel, deployment, site, observer, slots, shell, ports, modules=modules
        )
        (run_hub if is_hub else run_agent)(run)
    inspect_card(card, tomllib.loads(text)["broker"]["key"], report, work)
    (work / "report.json").write_text(json.dumps(vars(report), indent=1) + "\n")
    report.note(f"{options.machine}: {'failed: ' + '; '.join(report.failures) if report.failures else 'passed'}")
    return ExitCode.FAILED if report.failures else ExitCode.OK
