"""Read an ONNX file. It may be damaged, and its weights may be in other files, which must be in the same folder."""

from __future__ import annotations

import graphlib
import os
from pathlib import Path
from typing import Any

from seewhy.errors import ModelError, shorten_error
from seewhy.images.other_formats import describe_format, read_start
from seewhy.models.local_files import UnreadableFile, check_regular

MAX_BYTES = 2**31  # of a protobuf message
MAX_OPERATORS = 1_000_000


def read_onnx(path: Path) -> Any:
    """Return the model in an ONNX file, with its weights. It was checked against the ONNX specification.

    Raises:
        ModelError: The file is missing, damaged, or refers to files outside of its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    name = str(path)
    try:
        check_regular(path)
    except UnreadableFile as error:
        raise ModelError(name, f"{error}; check the path") from None
    if not os.path.getsize(path):
        raise ModelError(name, "the file is empty; export or download it again")
    if os.path.getsize(path) > MAX_BYTES:
        raise ModelError(name, "is larger than 2 GB, so it is not an ONNX file; check the path")
    try:
        model = onnx.load_model(name, load_external_data=False)
    except (DecodeError, ValueError) as error:
        found = describe_format(read_start(path))
        reason = (
            f"is {found[0]}, not an ONNX file" if found else f"is corrupt or not an ONNX file ({shorten_error(error)})"
        )
        raise ModelError(name, f"{reason}; export or download it again") from None
    except OSError as error:
        raise ModelError(name, f"cannot be read ({(error.strerror or str(error)).lower()})") from None
    if not model.graph.node:
        raise ModelError(name, "is corrupt or not an ONNX file (it has no operators); export or download it again")
    check_functions(model, path)
    load_weights(path, model)
    return model


def load_weights(path: Path, model: Any) -> None:
    """Load the tensors that are in other files.

    Raises:
        ModelError: A file is outside of the model's folder, missing, or too short.
    """
    import onnx

    folder = path.parent
    for location in external_files(model):
        other = folder / location
        if os.path.isabs(location) or not is_inside(other, folder):
            raise ModelError(
                str(path),
                f"refers to weights outside of its folder ({ascii(location)[:80]}); check where it comes from",
            )
        if not os.path.isfile(other):
            raise ModelError(
                str(path), f"its weights are in another file, {other}, which is missing; put it next to the model"
            )
    try:
        onnx.load_external_data_for_model(model, str(folder))
        check_specification(model)
    except Exception as error:  # of the C++ code of onnx
        raise ModelError(
            str(path), f"is corrupt or not a valid ONNX file ({shorten_error(error)}); export or download it again"
        ) from None


def is_inside(path: Path, folder: Path) -> bool:
    """Return True if a path is in a folder, also after links are followed."""
    try:
        return os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), ""))
    except ValueError:  # a null byte
        return False


def check_functions(model: Any, path: Path) -> None:
    """Raise ModelError for functions that call themselves, or would expand to millions of operators."""
    functions = {(one.domain, one.name): one.node for one in model.functions}
    calls = {
        name: [key for node in nodes if (key := (node.domain, node.op_type)) in functions]
        for name, nodes in functions.items()
    }
    sizes: dict[tuple[str, str], int] = {}
    try:
        for name in graphlib.TopologicalSorter(calls).static_order():
            sizes[name] = len(functions[name]) + sum(sizes[other] for other in calls[name])
    except graphlib.CycleError:
        raise ModelError(str(path), "has a function that calls itself; check where it comes from") from None
    total = sum(sizes.get((node.domain, node.op_type), 1) for node in model.graph.node)
    if total > MAX_OPERATORS:
        raise ModelError(str(path), f"its functions expand to {total:,} operators; check where it comes from")


def check_specification(model: Any) -> None:
    """Raise an error of onnx for an invalid model. Outputs without a shape are invalid too, but common."""
    import onnx

    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        if "'shape'" not in str(error):
            raise


def external_files(model: Any) -> list[str]:
    """Return the names of the files with weights of a model."""
    from onnx.external_data_helper import _get_all_tensors as all_tensors  # there is no public name

    names = [
        entry.value
        for tensor in all_tensors(model)
        if tensor.data_location == tensor.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    return list(dict.fromkeys(names))
