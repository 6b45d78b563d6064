"""Readable names for the operators of an ONNX file: those of the modules of the original network, where the file has them."""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

SCOPES = "pkg.torch.onnx.name_scopes"  # written by torch.onnx.export: the modules around an operator, outermost first


def operator_names(model: Any, prefix: str = "") -> list[str]:
    """Return a unique dotted name for each node: "layer1.0.conv1" for an operator that has the weights of one module,
    "layer1.0.add" for any other operator in a module.

    `prefix` is removed from the names. A name never is the start of another one, so that a module can be stored under each.
    """
    weights = {one.name for one in model.graph.initializer}
    names = [clean(node_name(node, weights)).removeprefix(prefix) for node in model.graph.node]
    prefixes = {name[:end] for name in names for end, letter in enumerate(name) if letter == "."}
    names = [
        f"{name}.{node.op_type.lower()}" if name in prefixes else name
        for name, node in zip(names, model.graph.node, strict=True)
    ]
    counts, result = Counter(names), list[str]()
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        result.append(name if counts[name] == 1 else f"{name}_{seen[name]}")
    return result


def node_name(node: Any, weights: set[str]) -> str:
    """Return the name of the module that a node belongs to, with the operator unless the node has its weights."""
    for name in node.input[1:]:
        if name in weights and name.endswith(".weight"):
            return str(name.removesuffix(".weight"))
    kind = node.op_type.lower()
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "")
    if scopes:
        module = module_of_scopes(scopes)
        return f"{module}.{kind}" if module else str(kind)
    if node.name.startswith("/"):  # "/layer1/layer1.0/conv1/Conv", as written by the older exporter of PyTorch
        *modules, _ = node.name.strip("/").split("/")
        return ".".join([*join_scopes(modules), kind])
    return str(node.name or kind)


def module_of_scopes(text: str) -> str:
    """Return the innermost module of "['', 'layer1', 'layer1.0', 'add']"; the last entry is the operator."""
    try:
        scopes = ast.literal_eval(text) if len(text) < 10_000 else []
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
    return str(scopes[-2]) if isinstance(scopes, list) and len(scopes) > 1 else ""


def join_scopes(scopes: list[str]) -> list[str]:
    """Return path components without those that the next one repeats.

    >>> join_scopes(["layer1", "layer1.0", "conv1"])
    ['layer1.0', 'conv1']
    """
    return [
        scope for i, scope in enumerate(scopes) if i + 1 == len(scopes) or not scopes[i + 1].startswith(f"{scope}.")
    ]


def clean(name: str) -> str:
    """Return a dotted name whose components are not empty and have no other separators.

    >>> clean("/layer1//conv.1")
    'layer1.conv.1'
    """
    parts = [part for part in name.replace("/", ".").replace(":", ".").split(".") if part]
    return ".".join("".join(c if c.isalnum() else "_" for c in part) for part in parts) or "node"
