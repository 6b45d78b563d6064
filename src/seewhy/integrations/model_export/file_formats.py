"""The formats of an exported network: to bytes, and back to a function of images."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim

from seewhy.errors import UnknownName, UsageError, shorten_error
from seewhy.integrations.model_export.exported import Format
from seewhy.storage.marks import MARK, ZIP_END

INSTALL = "pip install 'seewhy[onnx]'"
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MAX_ONNX_BYTES = 2**31 - 2**20  # a protobuf message has at most 2 GB
INPUT = "images"
UNSUPPORTED = re.compile(r"(?:No ONNX function found for|No decompositions registered for) <OpOverload\(op='([\w.:]+)'")

Run = Callable[[Tensor], list[Tensor]]


def check_format(format: str) -> None:
    """Raise UnknownName for a format that does not exist, and UsageError if a package is missing."""
    if format not in get_args(Format):
        raise UnknownName("format", format, get_args(Format), hint=f"There are {', '.join(get_args(Format))}.")
    if format != "onnx":
        return
    import importlib.util

    if missing := [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]:
        raise UsageError(f"exporting to ONNX needs {', '.join(missing)}: {INSTALL}")


def encode(
    format: str, network: nn.Module, inputs: Tensor, names: Sequence[str], metadata: Mapping[str, str], *,
    is_dynamic: bool, opset: int | None,
) -> bytes:  # fmt: skip
    """Return a network as the content of a file.

    Raises:
        UsageError: The format has no form of one of its operations, or the network cannot be traced.
    """
    with quiet_exporters(), export_errors(format):
        match format:
            case "onnx":
                content = encode_onnx(network, inputs, names, metadata, is_dynamic=is_dynamic, opset=opset)
            case "pt2":
                content = encode_program(network, inputs, metadata, is_dynamic=is_dynamic)
            case _:
                content = encode_torchscript(network, inputs, metadata)
    return content


def encode_onnx(
    network: nn.Module, inputs: Tensor, names: Sequence[str], metadata: Mapping[str, str], *,
    is_dynamic: bool, opset: int | None,
) -> bytes:  # fmt: skip
    weights = sum(value.nbytes for value in network.state_dict().values())
    if weights > MAX_ONNX_BYTES:
        raise UsageError(f"its weights have {weights / 1e9:.1f} GB, and one ONNX file at most 2 GB. Use --to pt2.")
    shapes = ({0: Dim.DYNAMIC},) if is_dynamic else None
    exported = torch.onnx.export(
        network, (inputs,), input_names=[INPUT], output_names=list(names), dynamic_shapes=shapes, opset_version=opset,
        dynamo=True, verbose=False,
    )  # fmt: skip
    assert exported is not None
    message = exported.model_proto
    message.producer_name = MARK
    for old in list(message.metadata_props):
        message.metadata_props.remove(old)
    for key, value in metadata.items():
        message.metadata_props.add(key=key, value=value)
    for node in message.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]
        del node.metadata_props[:]  # paths and source lines of this machine
        node.metadata_props.extend(kept)
        node.doc_string = ""
    return bytes(message.SerializeToString())


def encode_program(network: nn.Module, inputs: Tensor, metadata: Mapping[str, str], *, is_dynamic: bool) -> bytes:
    shapes = ({0: Dim.DYNAMIC},) if is_dynamic else None
    program = torch.export.export(network, (inputs,), dynamic_shapes=shapes, strict=False)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=dict(metadata))
    return with_mark(buffer.getvalue())


def encode_torchscript(network: nn.Module, inputs: Tensor, metadata: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    traced = torch.jit.trace(network, (inputs,), check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, buffer, _extra_files=dict(metadata))
    return with_mark(buffer.getvalue())


def with_mark(archive: bytes) -> bytes:
    """Return a zip file without a comment with the mark as its comment."""
    return archive[:-2] + ZIP_END


def open_content(format: str, content: bytes) -> Run:
    """Return a function that runs the content of a file: from images to its outputs."""
    with quiet_exporters():
        match format:
            case "onnx":
                return open_onnx(content)
            case "pt2":
                program: Any = torch.export.load(io.BytesIO(content)).module()
            case _:
                program = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    return lambda inputs: list(program(inputs))


def open_onnx(content: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda inputs: [torch.from_numpy(value) for value in session.run(None, {given.name: inputs.numpy()})]


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Suppress the warnings and log messages of exporters. What they warn about is verified on the result."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "torch.fx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def export_errors(format: str) -> Iterator[None]:
    """Convert an exception of an exporter to one line."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(describe_failure(format, error)) from error


def describe_failure(format: str, error: BaseException) -> str:
    """Return why a network cannot be exported, and what to do."""
    chain = list[str]()
    current: BaseException | None = error
    while current is not None and len(chain) < 10:
        chain.append(str(current))
        current = current.__cause__ or current.__context__
    text = "\n".join(chain)
    if match := UNSUPPORTED.search(text):
        return f"the ONNX exporter of PyTorch has no form of {match[1]}; export --to pt2, or another layer or map"
    if "static shape" in text or "specialized" in text or "Constraints violated" in text:
        return "the network computes with its number of images; export it for a fixed number: --batch 1 (batch=1)"
    return f"the network cannot be exported to {format} ({shorten_error(chain_root(error))})"


def chain_root(error: BaseException) -> BaseException:
    """Return the first error of a chain, which names the cause."""
    for _ in range(10):
        if error.__cause__ is None:
            break
        error = error.__cause__
    return error
