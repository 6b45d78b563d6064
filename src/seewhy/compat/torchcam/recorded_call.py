"""Keep the arguments and the output of a model's last call: users of torchcam run the model before they call the extractor."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import UsageError
from seewhy.tensors.nested import tensors_in
from seewhy.tracing.torch_private import version_of


class RecordedCall:
    """A forward hook on the user's model that keeps its last arguments and output, without changing them.

    Args:
        model: The model. The hook is removed by `remove`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.is_enabled = True
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.output: Any = None
        self._versions: list[int] = []
        self._model = weakref.ref(model)
        self._handle = model.register_forward_hook(self._keep, with_kwargs=True)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self.is_enabled and module is self._model():  # a twin of the model has its hooks too
            self.arguments, self.output = (args, kwargs), output
            self._versions = versions(args, kwargs)

    def set(self, inputs: Tensor, output: Any) -> None:
        """Store a call that was made elsewhere."""
        self.arguments, self.output = ((inputs,), {}), output
        self._versions = versions(*self.arguments)

    @property
    def inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments of the last call.

        Raises:
            UsageError: The model was not called, or an argument was overwritten since.
        """
        if self.arguments is None:
            raise UsageError("the model was not run since the extractor was created; run it on the inputs first.")
        if self._versions != versions(*self.arguments):
            raise UsageError(
                "the inputs were changed in place after the model ran; run it on a copy: model(inputs.clone())."
            )
        return self.arguments

    def clear(self) -> None:
        """Drop the last call."""
        self.arguments = self.output = None

    def remove(self) -> None:
        """Remove the hook from the model."""
        self._handle.remove()


def versions(args: object, kwargs: object) -> list[int]:
    """Return the version counters of the tensors in the arguments; those of inference tensors are not counted."""
    tensors = [tensor for tensor in tensors_in((args, kwargs)) if isinstance(tensor, Tensor)]
    return [version_of(tensor) for tensor in tensors if not torch.is_inference(tensor)]
