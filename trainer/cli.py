"""nonn-trainer: from a teacher to K students, one command or stage by stage."""

import argparse
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_agent import __version__
from edge_agent.console.program import ProgramParser, run_program
from trainer.bundle import add_bundle_command
from trainer.demo import run as demo
from trainer.flags import add_run_flags, given_settings
from trainer.progress import say
from trainer.reuse import link_teacher
from trainer.run_context import RunContext, quiet_tensorflow
from trainer.run_directory import RunDirectory

# `activations` has no name in the paper: it is the teacher's forward pass, kept because everything after it needs it.
STAGES = ("teacher", "activations", "partition", "distill", "export", "evaluate")
DESCRIPTION = "Split a trained network among K small devices: partition its filters, distil one student for each."
EPILOG = """\
examples:
  nonn-trainer run --dataset digits --teacher cnn-32-64-64 --student cnn-8-16-16 --students 3 --out runs/digits
      the whole chain on scikit-learn's digits, in about a minute
  NONN_CIFAR10=cifar10.zip nonn-trainer run --dataset cifar10 --teacher wrn40-4.keras --lconv lconv \\
      --student wrn-16-1 --students 2 --out runs/cifar10
      two students of 0.18 M parameters for a teacher of 8.95 M; the same command again goes on where it stopped
  nonn-trainer run --dataset photos.zip --teacher vgg11 --student wrn-16-1,wrn-16-2 --students 2 --out runs/photos
      your own images (train/CLASS/*.png, test/CLASS/*.png), a teacher trained from scratch, unequal devices
  nonn-trainer partition --out runs/cifar10
      one stage of an existing run; the stages are teacher, activations, partition, distill, export, evaluate

RUN/export is the deployment directory for nonn-coordinator and nonn-agent. Curves: tensorboard --logdir RUN.
Exit codes: 0 done, 1 a training failed, 64 usage, 65 bad input, 74 disk, 78 settings, 130 Ctrl-C (again to go on).
"""
FIT_EPILOG = """\
example:
  nonn-trainer fit --dataset cifar10 --teacher wrn-40-4 --student wrn-16-1 --students 2 --out runs/cifar10 \\
      --fit memory=500KB,macs=30M,power=2W --device pi3b+
Exit codes: 0 it fits, 65 it does not (the line says what would). All figures are estimated.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `nonn-trainer`."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves like Ctrl-C: nothing half-written, exit 130
    return run_program(lambda: int(arguments.job(arguments) or 0))


def _parser() -> argparse.ArgumentParser:
    parser = ProgramParser(prog="nonn-trainer", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"nonn-trainer {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, "run", "all stages that are not finished", _run_stages, EPILOG)
    for stage in STAGES:
        module_text = {
            "teacher": "train the teacher, or adopt a .keras file",
            "activations": "run the teacher over the augmented training images and the validation split",
            "partition": "build the filter graph and split it among the students",
            "distill": "train the students",
            "export": "write the deployment directory RUN/export",
            "evaluate": "accuracy of teacher and students on the test split, written to RUN/evaluation.json",
        }[stage]
        _add(commands, stage, module_text, _run_stages, "Needs the stages before it; see nonn-trainer --help.")
    _add(commands, "fit", "estimate whether the students fit a device, without training", _fit_only, FIT_EPILOG)
    report = commands.add_parser("report", help="write RUN/report.html", description="One self-contained HTML page.")
    _add_place(report)
    report.set_defaults(job=_write_report)
    status = commands.add_parser("status", help="how far a run is", description="Stages, passes, last validation.")
    _add_place(status)
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(job=_show_status)
    select = commands.add_parser(
        "select", help="copy a deployment with some of its precisions", description="The same students, fewer files."
    )
    select.add_argument("deployment", type=Path, metavar="DEPLOYMENT", help="such as RUN/export")
    select.add_argument("--precisions", required=True, metavar="P[,P...]", help="what to keep, such as int8")
    select.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new deployment directory")
    select.set_defaults(job=_select)
    demo.add_command(commands)
    add_bundle_command(commands)
    return parser


def _add_place(parser: argparse.ArgumentParser) -> None:
    """RUN, which may be called --out as everywhere else."""
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("run", type=Path, nargs="?", metavar="RUN", help="the run's directory")
    place.add_argument("--out", type=Path, metavar="RUN", help="the same")


def _add(commands: Any, name: str, text: str, job: Any, epilog: str) -> None:
    parser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run's directory")
    parser.add_argument("--json", action="store_true", help="print the results as JSON on stdout")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads to use [all]")
    parser.add_argument(
        "--fit", metavar="LIMITS", help="refuse to train what does not fit: memory=500KB,macs=30M,power=2W"
    )
    parser.add_argument("--device", default="pi3b+", metavar="BOARD", help="pi3b+, pi4, pi5 or pi-zero-2w [pi3b+]")
    parser.add_argument(
        "--distribute", choices=("none", "mirrored", "multiworker"), default="none",
        help="train the students on all GPUs, or on the machines of TF_CONFIG (docs/training.md) [none]",
    )  # fmt: skip
    parser.add_argument(
        "--reuse", type=Path, metavar="RUN", help="take the teacher's outputs from another run with the same teacher"
    )
    add_run_flags(parser)
    parser.set_defaults(job=job)


def _write_report(arguments: argparse.Namespace) -> None:
    from trainer.report.page import write_report

    print(write_report(arguments.run or arguments.out))


def _show_status(arguments: argparse.Namespace) -> None:
    from trainer.run_status import print_status

    print_status(arguments.run or arguments.out, arguments.json)


def _select(arguments: argparse.Namespace) -> None:
    from trainer.selection import select_precisions

    size_bytes = select_precisions(arguments.deployment, arguments.precisions.split(","), arguments.out)
    print(f"{arguments.out}: {size_bytes:,} bytes")


def _fit_only(arguments: argparse.Namespace) -> None:
    run = RunDirectory.open(arguments.out, given_settings(arguments))
    quiet_tensorflow()
    fit = importlib.import_module("trainer.fit_command")
    content = fit.check_run(RunContext(run, arguments.threads), fit.FitRequest(arguments.fit or "", arguments.device))
    if arguments.json:
        fit.print_reports(content)


def _run_stages(arguments: argparse.Namespace) -> None:
    run = RunDirectory.open(arguments.out, given_settings(arguments))
    if arguments.reuse:
        link_teacher(arguments.reuse, run)
    context = RunContext(run, arguments.threads)
    quiet_tensorflow(*_thread_plan(run, arguments.threads))
    _check_networks(run)
    if arguments.distribute != "none":
        context.strategy = importlib.import_module("trainer.distribution").open_strategy(arguments.distribute)
    fit = importlib.import_module("trainer.fit_command") if arguments.fit else None
    if fit is not None and not (run.path / "distill" / "stage.json").exists():
        fit.check_run(context, fit.FitRequest(arguments.fit, arguments.device))
    results: dict[str, Any] = {}
    for name in STAGES if arguments.command == "run" else (arguments.command,):
        started = time.perf_counter()
        stage = importlib.import_module(f"trainer.stages.{name}")
        results[name] = stage.run(context)
        say(f"{name}: done in {time.perf_counter() - started:.1f} s")
    if arguments.json:
        json.dump(results, sys.stdout, indent=1)
        print()
    elif "evaluate" in results:
        importlib.import_module("trainer.stages.evaluate").print_table(results["evaluate"])
        say(f"deployment: {run.path / 'export'}; report: nonn-trainer report {run.path}")


def _check_networks(run: RunDirectory) -> None:
    """A misspelt student would be found when the teacher is trained."""
    check_name = importlib.import_module("trainer.networks.catalogue").check_name
    settings = run.configuration
    for name in {settings.teacher, *settings.student}:
        if not name.endswith(".keras"):
            check_name(name)


def _thread_plan(run: RunDirectory, threads: int) -> tuple[int, int]:
    """Threads within an operation, and operations at once.

    As many trunks as cores run best side by side, one thread each: 158 against 123 images per CPU second for two
    WRN-16-1 (benchmarks/training). A teacher in training is a single chain and needs all threads within its operations.
    """
    cores = threads or os.cpu_count() or 1
    settings = run.configuration
    trains_teacher = not settings.teacher.endswith(".keras")
    if trains_teacher or settings.students < cores:
        return threads, threads
    return 1, cores


if __name__ == "__main__":
    sys.exit(main())
