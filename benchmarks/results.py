"""What a part of the benchmarks hands back, and how it is written down."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

import torch

PACKAGES = ["seewhy", "torchcam", "grad-cam", "captum", "torch", "torchvision", "timm", "numpy", "pillow"]


@dataclass(frozen=True)
class Aim:
    """One promise beside its measured figure. Met or not is computed, never written down."""

    promise: str
    measured: float
    limit: float
    unit: str = "x"

    @property
    def met(self) -> bool:
        return self.measured <= self.limit

    @property
    def row(self) -> list[str]:
        verdict = "met" if self.met else "**not met**"
        return [self.promise, f"{self.measured:.2f} {self.unit}", f"at most {self.limit:.2f} {self.unit}", verdict]


@dataclass(frozen=True)
class Table:
    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass
class Report:
    tables: list[Table] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)

    def __iadd__(self, other: Report) -> Report:
        self.tables += other.tables
        self.aims += other.aims
        return self


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def setting(rounds: int, load_before: str) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    facts = [
        ("Date", f"{datetime.date.today():%Y-%m-%d}"),
        ("Processor", f"{processor()}, {cores()} cores, torch on {torch.get_num_threads()} threads"),
        ("System", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        ("Load before the run", f"{load_before} (0.0 is an idle machine; the higher, the less the times say)"),
        ("Rounds", str(rounds)),
        ("Versions", versions),
    ]
    return "\n".join(f"- {name}: {value}" for name, value in facts)


def merged(old: str, report: Report, load_before: str) -> str:
    """The page with the aims and tables of parts that were run by themselves in place of, or behind, those that were there."""
    when = f"Run by itself on {datetime.date.today():%Y-%m-%d}, load before {load_before}."
    head, *sections = old.rstrip().split("\n## ")
    found = {section.partition("\n")[0]: section for section in sections}
    for aim in report.aims:
        row = "| " + " | ".join(aim.row) + " |"
        lines = found["Aims"].rstrip().split("\n")
        kept = [line for line in lines if not line.startswith(f"| {aim.promise} |")]
        found["Aims"] = "\n".join([*kept, row]) + "\n"
    for table in report.tables:
        parts = [table.title, f"{when} {table.note}".strip(), markdown(table.header, table.rows)]
        found[table.title] = "\n\n".join(parts) + "\n"
    return "\n## ".join([head, *(section if section.endswith("\n") else section + "\n" for section in found.values())])


def page(report: Report, rounds: int, load_before: str) -> str:
    parts = ["# Benchmark results", "Written by `make bench`; do not edit.", setting(rounds, load_before)]
    if report.aims:
        parts += ["## Aims", markdown(["aim", "measured", "limit", ""], [aim.row for aim in report.aims])]
    for table in report.tables:
        parts += [f"## {table.title}", *([table.note] if table.note else []), markdown(table.header, table.rows)]
    return "\n\n".join(parts) + "\n"
