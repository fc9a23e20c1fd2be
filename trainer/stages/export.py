"""Stage `export`: the deployment directory RUN/export, complete or absent."""

import shutil
import time
from dataclasses import asdict
from typing import Any

from edge_agent.console.atomic_file import sync_folder, write_atomically
from trainer.export_checks import ExportAccuracy, accuracy_table, check_accuracies
from trainer.feature_budget import BudgetRow, budget_table
from trainer.progress import say
from trainer.run_context import RunContext
from trainer.run_directory import file_hash
from trainer.stages.distill import trained_joint
from trainer.stages.export_answers import choose_codecs, export_accuracies, fitted_head, seen_features
from trainer.stages.export_files import Exported, compiled_modules, export_files
from trainer.stages.export_manifest import make_manifest
from trainer.tvm_export.outcome import ExportedModules


def run(context: RunContext) -> dict[str, Any]:
    """Convert, compile, check, fit the heads, write the manifest; returns the stage's results."""
    settings, stage = context.run.configuration, context.run.stage("exporting")
    weights = context.run.path / "distill" / "joint.weights.h5"
    context.run.stage("distill").results()
    stage.claim(_inputs(context, file_hash(weights)))
    if stage.finished:
        _show(stage.results())
        return stage.results()
    started = time.perf_counter()
    joint = trained_joint(context)
    folder = context.run.path / ".export.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    exported = export_files(context, joint, folder)
    modules = compiled_modules(context, exported, folder)
    seen = seen_features(context, exported)
    rows, row, codecs = choose_codecs(context, joint, seen)
    head, accuracies = fitted_head(context, joint, seen, codecs)
    found, keras_accuracy = export_accuracies(context, joint, exported, modules, codecs, head)
    check_accuracies(found, keras_accuracy, len(context.dataset.validation.labels))
    write_atomically(folder / "head.npz", head.to_bytes())
    manifest = make_manifest(context, folder, exported, modules, codecs, accuracies)
    write_atomically(folder / "manifest.json", manifest.to_bytes())
    target = context.run.path / "export"
    shutil.rmtree(target, ignore_errors=True)
    folder.replace(target)
    sync_folder(context.run.path)
    results = {
        "validation_accuracy": accuracies[(1 << settings.students) - 1],
        "validation_accuracy_by_mask": {str(mask): value for mask, value in accuracies.items()},
        "relative_errors": _relative_errors(exported, modules),
        "bytes": {a.file: a.size_bytes for s in manifest.students for a in s.artifacts},
        "keras_accuracy": keras_accuracy,
        "accuracies": [asdict(one) for one in found],
        "feature_encoding": row.title,
        "feature_budget": [asdict(one) for one in rows],
        "compile_s": {c.path.name: round(c.compile_s, 2) for m in modules for c in m.compiled},
    }
    stage.finish(results, time.perf_counter() - started)
    _show(results)
    return results


def _inputs(context: RunContext, weights: str) -> dict[str, Any]:
    """What decides the export. Settings younger than the first runs count only where they differ from the default."""
    settings = context.run.configuration
    inputs = {
        "weights": weights, "precisions": list(settings.precisions), "name": settings.name, "version": settings.version,
    }  # fmt: skip
    for name in ("tvm", "feature_encoding", "feature_points"):
        if getattr(settings, name) != type(settings).model_fields[name].default:
            inputs[name] = getattr(settings, name)
    return inputs


def _relative_errors(exported: Exported, modules: list[ExportedModules]) -> dict[str, float]:
    """How far each file is from Keras on the validation split; of TVM's, one for each student."""
    errors = {f.path.name: f.relative_error for _, files in exported for f in files}
    return errors | {m.shown.path.name: m.relative_error for m in modules}


def _show(results: dict[str, Any]) -> None:
    """Print what was checked, and bytes against accuracy; nothing for exports of before there was a budget."""
    if "feature_budget" not in results:
        return
    found = [ExportAccuracy(**one) for one in results["accuracies"]]
    errors: dict[str, float] = {}
    for file, error in results["relative_errors"].items():
        name = "tvm float32" if file.endswith(".so") else f"tflite {file.split('.')[1]}"
        errors[name] = max(errors.get(name, 0.0), error)
    say("\n" + accuracy_table(found, results["keras_accuracy"], errors))
    rows = [BudgetRow(**one) for one in results["feature_budget"]]
    chosen = next(row for row in rows if row.title == results["feature_encoding"])
    say("\nFor each frame and student, through the head of the training:\n\n" + budget_table(rows, chosen) + "\n")
