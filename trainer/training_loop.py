"""One loop for teachers and students: passes of seeded batches, validation, checkpoints that resume exactly."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.batches import Ahead
from trainer.checkpoint import TrainingState, restore_checkpoint, save_checkpoint
from trainer.progress import progress_bar, say

CHECKPOINT_PERIOD_S = 60.0  # what a power cut costs; a WRN-16-1 checkpoint takes a few milliseconds
SAID_PERIOD_S = 5.0  # short passes are not worth a line each
LOOK_PERIOD_STEPS = 20  # reading the loss waits for the step; a NaN is noticed this late

Validate = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class LoopPlan:
    """`make_batch(step)` gives what `take_step(batch, step)` takes; both are functions of the step alone."""

    title: str
    passes: int
    steps_per_pass: int
    make_batch: Callable[[int], Any]
    take_step: Callable[[Any, int], Mapping[str, Any]]
    validate: Validate
    variables: list[Any]
    folder: Path
    writes: bool = True  # false for the workers that only lend their processors

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.passes * self.steps_per_pass


def train(plan: LoopPlan, on_pass: Callable[[dict[str, float]], None] | None = None) -> TrainingState:
    """Run, or go on with, a training; returns its final state, which is also on disk."""
    file = plan.folder / "checkpoint.npz"
    state = restore_checkpoint(file, plan.variables)
    if state.step:
        say(f"{plan.title}: going on at step {state.step} of {plan.steps}")
    ahead = Ahead(plan.make_batch, state.step, plan.steps)
    try:
        with _stop_between_steps() as stopped, progress_bar(plan.title, plan.steps) as advance:
            advance(state.step, "")
            saved = began = time.perf_counter()
            before, said = state.seconds, -math.inf
            for batch in ahead:
                losses = plan.take_step(batch, state.step)
                state.step += 1
                advance(1, "")
                state.seconds = before + time.perf_counter() - began
                if state.step % LOOK_PERIOD_STEPS == 0 or state.step % plan.steps_per_pass == 0:
                    _look(plan, state, losses)
                if state.step % plan.steps_per_pass == 0:
                    line = _end_pass(plan, state, on_pass)
                    if state.step == plan.steps or time.perf_counter() - said > SAID_PERIOD_S:
                        said = time.perf_counter()
                        say(line)
                if stopped() or state.step == plan.steps or time.perf_counter() - saved > CHECKPOINT_PERIOD_S:
                    if plan.writes:
                        save_checkpoint(file, plan.variables, state)
                    saved = time.perf_counter()
                if stopped():
                    raise KeyboardInterrupt
    finally:
        ahead.close()
    return state


def _look(plan: LoopPlan, state: TrainingState, losses: Mapping[str, Any]) -> None:
    for name, value in losses.items():
        number = float(value)
        if not math.isfinite(number):
            raise UserError(
                f"{plan.title}: {name} became {number} at step {state.step}; the last checkpoint is kept in "
                f"{plan.folder}: start a new run with a lower rate",
                ExitCode.FAILED,
            )
        state.running[name] = state.running.get(name, 0.0) + number
    state.running["looks"] = state.running.get("looks", 0.0) + 1


def _end_pass(plan: LoopPlan, state: TrainingState, on_pass: Callable[[dict[str, float]], None] | None) -> str:
    """Validate and record; returns a line about it."""
    looks = state.running.pop("looks", 1.0)
    entry = {name: total / looks for name, total in state.running.items()}
    entry |= plan.validate() if plan.writes else {}
    entry |= {"pass": state.step // plan.steps_per_pass, "seconds": state.seconds}
    state.running = {}
    state.history.append(entry)
    if on_pass is not None and plan.writes:
        on_pass(entry)
    return f"{plan.title}: pass {entry['pass']:.0f}/{plan.passes}, {state.seconds:.0f} s, {in_words(entry)}"


def in_words(entry: Mapping[str, float]) -> str:
    """What a line has room for; all of it is in the history and in the curves.

    >>> in_words({"loss": 0.51, "label_loss": 0.2, "val_accuracy": 0.5, "val_accuracy_without_0": 0.25})
    'loss 0.51, validation 50.0 %, without one student 25.0 %'
    >>> in_words({"loss": 0.5, "val_accuracy_without_0": 0.25, "val_accuracy_without_1": 0.5})
    'loss 0.5, without one student 25.0 to 50.0 %'
    """
    parts = [f"loss {entry['loss']:.4g}"] if "loss" in entry else []
    if "val_accuracy" in entry:
        parts.append(f"validation {entry['val_accuracy']:.1%}".replace("%", " %"))
    missing = [100 * value for key, value in entry.items() if key.startswith("val_accuracy_without_")]
    if missing:
        bounds = sorted({f"{min(missing):.1f}", f"{max(missing):.1f}"}, key=float)
        parts.append(f"without one student {' to '.join(bounds)} %")
    return ", ".join(parts)


@contextmanager
def _stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Ctrl-C or SIGTERM lets the running step end and its checkpoint be written; the second one does not wait."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, _frame: object) -> None:
        asked.set()
        signal.signal(number, signal.default_int_handler)

    kept = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, before in kept.items():
            signal.signal(number, before)
