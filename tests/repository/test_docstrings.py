"""Public docstrings are in Google style and complete: summary, Args, Returns, Raises, and no `Any` in the signature."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

import seewhy
from seewhy.errors import SeewhyError
from seewhy.methods import CONTRACTS
from seewhy.methods.base import BaseMethod
from seewhy.targets import Target

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples", "References", "Note")
MODULES = ("seewhy", "seewhy.methods", "seewhy.targets", "seewhy.errors", "seewhy.testing", "seewhy.integrations")
# Parameters that select a map. The methods of `Explanation` need not repeat them, as the docstring of the class explains them.
SELECTION = {"method", "target", "layer"}
INTERNAL_FIELDS = ("context",)  # set by `Target.bind`, never by users
# `Any` is allowed for the values of JSON objects, as in the standard library, and for objects of optional packages.
LIGHTNING_HOOKS = ("on_train_start", "on_train_batch_end", "on_train_end", "teardown")
TRAINER_HOOKS = ("on_train_begin", "on_step_end", "on_train_end")
ALLOWED_ANY = {
    **{f"seewhy.integrations.LightningCallback.{name}": {"trainer", "pl_module", "_"} for name in LIGHTNING_HOOKS},
    **{
        f"seewhy.integrations.TrainerCallback.{name}": {"args", "state", "control", "arguments"}
        for name in TRAINER_HOOKS
    },
    "seewhy.BulkRun": {"job"},
    "seewhy.Explanation": {"provenance"},
    "seewhy.Explanation.to_dict": {"return"},
}


def public_objects() -> Iterator[tuple[str, object]]:
    """Yield every public function and class with its public name, and the public members that users call."""
    done: set[int] = set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in public_names(module):
            value = getattr(module, name)
            if not is_ours(value) or id(value) in done:
                continue
            done.add(id(value))
            public_name = f"{module_name}.{name}"
            yield public_name, value
            if inspect.isclass(value):
                for member_name, member in public_members(value):
                    if id(member) in done:
                        continue  # inherited, and already listed
                    done.add(id(member))
                    yield f"{public_name}.{member_name}", member


def public_names(module: ModuleType) -> list[str]:
    if module.__name__ == "seewhy.errors":  # its functions format messages for the package
        return [
            name for name, value in vars(module).items() if inspect.isclass(value) and issubclass(value, SeewhyError)
        ]
    if module.__name__ == "seewhy.testing":
        return ["check_method"]
    return list(getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]))


def is_ours(value: object) -> bool:
    is_object = inspect.isclass(value) or inspect.isfunction(value) or inspect.ismethod(value)
    return is_object and str(getattr(value, "__module__", "")).startswith("seewhy")


def public_members(cls: type) -> Iterator[tuple[str, object]]:
    """Yield the methods and properties of a class and of its base classes in seewhy.

    A method of a concrete method or target class is public only if its base class has it, and is documented there.
    """
    if issubclass(cls, (BaseMethod, Target)) and cls.__name__ not in (*CONTRACTS, "Target"):
        return
    members = {name: member for base in reversed(cls.__mro__) if is_ours(base) for name, member in vars(base).items()}
    for name, member in members.items():
        if name.startswith("_"):
            continue
        if isinstance(member, (staticmethod, classmethod)):
            yield name, member.__func__
        elif isinstance(member, (property, functools.cached_property)) or inspect.isfunction(member):
            yield name, member


def docstring(value: object) -> str:
    return inspect.cleandoc(getattr(value, "__doc__", None) or "")


def sections(text: str) -> dict[str, str]:
    """Return the text of each section of a Google-style docstring.

    >>> sections("Do it.\\n\\nArgs:\\n    x: A number.\\n")["Args"].strip()
    'x: A number.'
    """
    found = re.split(rf"^({'|'.join(SECTIONS)}):[ ]*$", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def parameters(value: object) -> list[str]:
    """Return the parameters that a docstring must describe."""
    if inspect.isclass(value) and dataclasses.is_dataclass(value):
        return [item.name for item in dataclasses.fields(value) if item.init and item.name not in INTERNAL_FIELDS]
    if getattr(value, "_is_protocol", False):
        return []  # its __init__ is that of `Protocol`
    function = value.__init__ if inspect.isclass(value) else value  # type: ignore[misc]
    if not inspect.isfunction(function):
        return []
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def missing_parameters(value: object, described: str) -> list[str]:
    """Return the parameters without an entry in a section; the entry "name, other: ..." describes two."""
    entries = re.findall(r"^\s*((?:\*{0,2}\w+)(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:", described, re.MULTILINE)
    names = {name.strip("* ") for entry in entries for name in entry.split(",")}
    return [name for name in parameters(value) if name not in names | explained_by_class(value)]


def explained_by_class(value: object) -> set[str]:
    owner = str(getattr(value, "__qualname__", "")).partition(".")[0]
    if owner not in {cls.__name__ for cls in seewhy.Explanation.__mro__}:
        return set()
    return SELECTION & set(re.findall(r"`(\w+)`", docstring(seewhy.Explanation).partition("Args:")[0]))


def raises(function: Callable[..., object]) -> bool:
    """Return True if the body of a function contains a `raise` of one of seewhy's errors or of a new exception."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(tree))


def unwrap(value: object) -> object:
    if inspect.ismethod(value):
        return value.__func__
    if isinstance(value, property):
        return value.fget
    return value.func if isinstance(value, functools.cached_property) else value


def problems(name: str, value: object) -> list[str]:
    target = unwrap(value)
    text = docstring(target)
    if not text:
        return ["no docstring"]
    summary, known = text.partition("\n\n")[0], sections(text)
    found = [] if summary.rstrip().endswith((".", ":")) else ["the summary is not a sentence"]
    described = known.get("Args", "") + known.get("Attributes", "")
    is_error = inspect.isclass(target) and issubclass(target, SeewhyError)
    if not is_error and (missing := missing_parameters(target, described)):
        found.append(f"Args or Attributes: {', '.join(missing)} missing")
    if any_annotations := annotations_with_any(target) - ALLOWED_ANY.get(name, set()):
        found.append(f"`Any` in the type of {', '.join(sorted(any_annotations))}")
    if inspect.isclass(target):
        if not is_error and raises_when_created(target) and "Raises" not in known:
            found.append("no Raises section")
    elif isinstance(value, (property, functools.cached_property)):  # a property has no sections
        if raises(target) and not re.search(r"\bRaises?\b", text):
            found.append("raises an error that the text does not mention (Raises)")
    else:
        found += problems_of_function(target, summary, known)
    return found


def problems_of_function(function: object, summary: str, known: dict[str, str]) -> list[str]:
    assert inspect.isfunction(function)
    found = []
    has_result = function.__annotations__.get("return", "None") not in ("None", None, "NoReturn")
    if has_result and not {"Returns", "Yields"} & set(known) and not summary.startswith(("Return ", "Yield ")):
        found.append("no Returns section")
    if raises(function) and "Raises" not in known:
        found.append("no Raises section")
    return found


def annotations_with_any(target: object) -> set[str]:
    """Return the parameters whose type contains `Any`, and "return"."""
    if inspect.isclass(target) and dataclasses.is_dataclass(target):
        types = {item.name: item.type for item in dataclasses.fields(target)}
    else:
        types = getattr(target.__init__ if inspect.isclass(target) else target, "__annotations__", {})  # type: ignore[misc]
    return {name for name, annotation in types.items() if re.search(r"\bAny\b", str(annotation))}


def raises_when_created(cls: type) -> bool:
    functions = [vars(cls).get(name) for name in ("__init__", "__post_init__")]
    return any(
        inspect.isfunction(one) and one.__module__ == cls.__module__ and has_source(one) and raises(one)
        for one in functions
    )


def has_source(function: Callable[..., object]) -> bool:
    """Return False for the generated `__init__` of a dataclass."""
    return function.__code__.co_filename != "<string>"


OBJECTS = dict(public_objects())


@pytest.mark.parametrize("name", OBJECTS)
def test_docstring(name: str) -> None:
    found = problems(name, OBJECTS[name])
    assert not found, f"{name}: {'; '.join(found)}"


def test_the_public_names_are_found() -> None:
    assert {"seewhy.explain", "seewhy.Explanation.map", "seewhy.methods.GradCAM", "seewhy.errors.MethodError"} <= set(
        OBJECTS
    )
    missing = {name for name in seewhy.__all__ if f"seewhy.{name}" not in OBJECTS} - {"__version__"}
    assert not missing
