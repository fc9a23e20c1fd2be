"""What the demo measured, as tables for people."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.manifest import Student
from trainer.run_directory import read_json

PARTS = ("student", "queue", "transport", "merge", "total")


def print_tables(console: Console, run: Path, deployment_path: Path, report: dict[str, Any], broker: str) -> None:
    """Accuracy, cost per device, bytes on the wire and latency. `report`: what nonn-coordinator evaluate wrote."""
    offline = read_json(run / "evaluation.json")
    console.print(_accuracy_table(offline, report))
    console.print(_cost_table(offline, open_deployment(deployment_path).manifest.students, offline["precision"]))
    console.print(_bytes_table(report["bytes"]))
    console.print(_latency_table(report["latency_ms"], broker))


def _accuracy_table(offline: dict[str, Any], report: dict[str, Any]) -> Table:
    table = _table(f"accuracy on {offline['test_images']} held-out images", "", "frames", "accuracy")
    table.add_row("teacher", str(offline["test_images"]), f"{offline['teacher_accuracy']:.2%}")
    merged = f"{len(offline['students'])} students merged offline ({offline['precision']})"
    table.add_row(merged, str(offline["test_images"]), f"{offline['accuracy']:.2%}")
    for result, label in (("complete", "over MQTT, all students"), ("degraded", "over MQTT, one student missing")):
        accuracy = report["accuracy_by_result"].get(result)
        table.add_row(label, str(report["results"].get(result, 0)), "-" if accuracy is None else f"{accuracy:.2%}")
    table.add_row("over MQTT, all answers", str(report["answered"]), f"{report['accuracy']:.2%}", style="bold")
    return table


def _cost_table(offline: dict[str, Any], students: tuple[Student, ...], precision: str) -> Table:
    table = _table("on each device", "", "parameters", "multiply-adds", "filters", "bytes")
    macs = offline.get("teacher_macs")
    filters = str(sum(s.width for s in students))
    table.add_row("teacher", f"{offline['teacher_parameters']:,}", f"{macs:,}" if macs else "-", filters, "-")
    for student in students:
        size = next(artifact.size_bytes for artifact in student.artifacts if artifact.precision == precision)
        name = f"student {student.index}: {student.network}, {precision}"
        table.add_row(name, f"{student.parameters:,}", f"{student.macs:,}", str(student.width), f"{size:,}")
    return table


def _bytes_table(sizes: dict[str, float]) -> Table:
    table = _table("bytes on the wire", "message", "payload")
    names = {"frame": "image to the devices", "features": "features of one student", "prediction": "answer"}
    for key, name in names.items():
        table.add_row(name, f"{sizes[key]:.0f}" if key in sizes else "-")
    return table


def _latency_table(latency: dict[str, dict[str, dict[str, float]]], broker: str) -> Table:
    table = _table(f"latency through {broker} on this machine, ms", "part", "p50", "p95", "p99")
    for result, parts in latency.items():
        for part in PARTS:
            values = parts[part]
            name = part if result == "complete" else f"{part} ({result})"
            table.add_row(name, *(f"{values[p]:.2f}" for p in ("p50", "p95", "p99")), end_section=part == "total")
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
