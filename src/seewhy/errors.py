"""The exceptions of seewhy, in one hierarchy.

    SeewhyError
    ├── ImageError          an image cannot be read; the other images are still processed
    └── UsageError          the call cannot run with these arguments
        ├── OptionError     an option has a value that is never valid
        ├── UnknownName     no model, layer, method, class, color table, ... has this name
        ├── ModelError      the model cannot be loaded or traced
        │   └── OfflineError    the weights must be downloaded, and the server is not reachable
        ├── LayerError      the layer exists but cannot produce a map
        ├── TargetError     the target does not fit the model's output
        ├── MethodError     the method does not fit the model, layer or target, or has an invalid setting
        ├── RecordError     a saved file is damaged, or was not written by seewhy
        └── ChoiceError     the result has several maps, and the call needs one

Every message states what happened, what was given and what to do. The same data is available as attributes.
`docs/errors.md` lists all messages.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence

# Exceptions that models raise for inputs of an unsupported size.
INPUT_ERRORS = (RuntimeError, AssertionError, ValueError, IndexError, TypeError)


class SeewhyError(Exception):
    """Base class of all exceptions of seewhy. `str(error)` is one line.

    Example:
        >>> try:
        ...     raise LayerError("layer4", "has no grid")
        ... except SeewhyError as error:
        ...     print(error)
        layer 'layer4': has no grid
    """


class ImageError(SeewhyError):
    """Raised when an image cannot be read: missing, corrupt, empty, too large, or not an image.

    Attributes:
        source: The path, or "<type>" for an image that is not a file.
        reason: What is wrong, without the source.

    Example:
        >>> str(ImageError("cat.jpg", "no such file"))
        'cat.jpg: no such file'
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class UsageError(SeewhyError):
    """Raised when a call cannot run with its arguments: an invalid value, or an unsupported combination.

    Example:
        >>> str(UsageError("device 'cuda:9': 1 is available; use auto or cpu"))
        "device 'cuda:9': 1 is available; use auto or cpu"
    """


class OptionError(UsageError):
    """Raised when an option has a value that is never valid. The command line shows the name as a flag ("--batch-size").

    Attributes:
        option: The name of the option, as in Python.
        value: The value as given.
        reason: The accepted values.

    Example:
        >>> str(OptionError("memory", 0, "give a number of megabytes above 0."))
        'memory=0: give a number of megabytes above 0.'
    """

    def __init__(self, option: str, value: object, reason: str) -> None:
        super().__init__(f"{option}={value!r}: {reason}")
        self.option = option
        self.value = value
        self.reason = reason


class UnknownName(UsageError):
    """Raised when no model, layer, method, class, option, ... has the given name.

    Attributes:
        kind: What the name should refer to: "layer", "method", ...
        name: The name as given.
        choices: All valid names.
        close_matches: Up to three valid names that are similar to `name`, best first.

    Example:
        >>> str(UnknownName("layer", "layer5", ["layer3", "layer4"], hint="List them: seewhy layers"))
        "no layer 'layer5' - did you mean 'layer4' or 'layer3'? List them: seewhy layers"
    """

    def __init__(
        self, kind: str, name: str, choices: Iterable[str], hint: str = "", close_matches: Sequence[str] | None = None
    ) -> None:
        self.kind = kind
        self.name = name
        self.choices = list(choices)
        self.close_matches = find_close_matches(name, self.choices) if close_matches is None else list(close_matches)
        guess = f" - did you mean {join_choices(self.close_matches)}?" if self.close_matches else "."
        super().__init__(f"no {kind} '{name}'{guess}{' ' + hint if hint else ''}")


class ModelError(UsageError):
    """Raised when a model cannot be loaded or traced, or fails on its inputs.

    If the model itself raised an exception, the error is also an instance of that exception's type.

    Attributes:
        model: The model's URI or class name.
        reason: What is wrong, without the model.

    Example:
        >>> str(ModelError("weights.pth", "no such file"))
        'weights.pth: no such file'
    """

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"{model}: {reason}")
        self.model = model
        self.reason = reason


class OfflineError(ModelError):
    """Raised when weights are not on this machine and cannot be downloaded now.

    Attributes:
        model: The model's URI.
        reason: What is wrong, and how to get the file another way.

    Example:
        >>> isinstance(OfflineError("timm/resnet18", "huggingface.co cannot be reached"), ModelError)
        True
    """


class LayerError(UsageError):
    """Raised when a layer exists but cannot produce a map, for example because its output has no grid.

    Attributes:
        layer: The layer's name or pattern.
        reason: What is wrong, without the layer.

    Example:
        >>> str(LayerError("fc", "its output has no grid"))
        "layer 'fc': its output has no grid"
    """

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(f"layer '{layer}': {reason}")
        self.layer = layer
        self.reason = reason


class TargetError(UsageError):
    """Raised when a target does not fit the model's output, or is not a valid target.

    Attributes:
        target: The target as given.
        reason: What is wrong, without the target.

    Example:
        >>> str(TargetError(1000, "the model has 1000 classes, 0 to 999"))
        'target 1000: the model has 1000 classes, 0 to 999'
    """

    def __init__(self, target: object, reason: str) -> None:
        super().__init__(f"target {target!r}: {reason}")
        self.target = target
        self.reason = reason


class MethodError(UsageError):
    """Raised when a method does not support the model, layer or target, or when a setting is invalid.

    Attributes:
        method: The method's name.
        reason: What is wrong, without the method.

    Example:
        >>> str(MethodError("scorecam", "top must be at least 1"))
        'method scorecam: top must be at least 1'
    """

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(f"method {method}: {reason}")
        self.method = method
        self.reason = reason


class RecordError(UsageError):
    """Raised when a file that seewhy saved cannot be read back: it is damaged, was changed, or is of another program.

    Attributes:
        file: The path of the file.
        field: The field of the file that is wrong, or "".
        reason: What is wrong, without file and field.

    Example:
        >>> str(RecordError("cam/bus/explanation.json", "targets[0].score", "expected float, got str"))
        'cam/bus/explanation.json: targets[0].score: expected float, got str. Create it again with seewhy.'
    """

    def __init__(self, file: str | os.PathLike[str], field: str, reason: str) -> None:
        place = f"{field}: " if field else ""
        super().__init__(f"{os.fspath(file)}: {place}{reason}. Create it again with seewhy.")
        self.file = os.fspath(file)
        self.field = field
        self.reason = reason


class ChoiceError(UsageError):
    """Raised when a result has several maps and the call needs one: name the method, target, layer or image.

    Attributes:
        choices: The names to choose from.

    Example:
        >>> ChoiceError("2 methods; name one: method='gradcam'", ["gradcam", "layercam"]).choices
        ['gradcam', 'layercam']
    """

    def __init__(self, message: str, choices: Iterable[str]) -> None:
        super().__init__(message)
        self.choices = list(choices)


def find_close_matches(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """Return the up to `count` choices most similar to `name`, best first, ignoring case."""
    folded: dict[str, str] = {}
    for choice in choices:
        folded.setdefault(choice.casefold(), choice)
    return [folded[key] for key in difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.6)]


def join_choices(names: Sequence[str]) -> str:
    """Return quoted names as a list in a sentence.

    >>> join_choices(["a", "b", "c"]), join_choices(["a"])
    ("'a', 'b' or 'c'", "'a'")
    """
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


def one_line(error: BaseException) -> str:
    """Return an error's complete message on one line; the name of its type where the message is empty.

    >>> one_line(ValueError("too\\n  long"))
    'too long'
    """
    return " ".join(str(error).split()) or type(error).__name__


def os_error_reason(error: OSError | ValueError) -> str:
    """Return why a file cannot be used, without its name.

    >>> os_error_reason(FileNotFoundError(2, "No such file or directory", "a.jpg"))
    'no such file or directory'
    """
    reason = getattr(error, "strerror", None)
    return reason.lower() if reason else one_line(error)


def shorten_error(error: BaseException, limit: int = 200) -> str:
    """Return the first sentence of an error's message, at most `limit` characters.

    For errors of other libraries, whose messages can fill pages, and contain bytes of a damaged file.

    >>> shorten_error(RuntimeError("Cannot open it. See the manual\\nand more")), shorten_error(OSError("no type \\x0e"))
    ('Cannot open it', 'no type \\\\x0e')
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0].partition(". ")[0].rstrip(" .:")
    text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def error_with_type(error: BaseException) -> str:
    """Return the type and the first sentence of an error of other code, without the type of a plain RuntimeError.

    >>> error_with_type(KeyError("width")), error_with_type(AssertionError()), error_with_type(RuntimeError("sizes differ"))
    ("KeyError: 'width'", 'AssertionError', 'sizes differ')
    """
    kind, text = type(error).__name__, shorten_error(error)
    return text if kind in (text, "RuntimeError") else f"{kind}: {text}"


def describe_argument(value: object) -> str:
    """Return an argument for a message: short values unchanged, others as their type.

    >>> describe_argument(None), describe_argument("x"), describe_argument({"a": 1}), describe_argument(dict)
    ('None', "'x'", 'dict', 'class dict')
    """
    if isinstance(value, type):
        return f"class {value.__name__}"
    return repr(value) if value is None or isinstance(value, (int, float, str)) else type(value).__name__
