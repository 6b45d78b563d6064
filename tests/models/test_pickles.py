"""The opcodes of pickles are counted as the standard library parses them."""

from __future__ import annotations

import pickle
import pickletools
import random
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from seewhy.models import pickles
from seewhy.models.pickles import check_pickles


def accepts_by_pickletools(data: bytes, limit: int) -> bool:
    """Count containers as `count_containers` does, with the parser of the standard library."""
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(data):
        if "PUT" in opcode.name or opcode.name == "MEMOIZE":
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif opcode.name == "STOP":
            break
        elif opcode.name == "MARK":
            marks.append(len(stack))
        else:
            before = opcode.stack_before
            has_mark = pickletools.markobject in before
            start = marks.pop() - before.index(pickletools.markobject) if has_mark else len(stack) - len(before)
            count = bool(before) + sum(stack[start:])
            if count > limit:
                return False
            stack[start:] = [count] * len(opcode.stack_after)
    return True


def random_object(generator: random.Random, shared: list[object], depth: int = 0) -> object:
    """Return nested containers that share some of their parts, with values of all types that a checkpoint has."""
    values = [3, -70_000, 2**40, 0.5, "a\nb", "x" * 300, b"bytes", None, True, OrderedDict(a=1), torch.Size([1, 2])]
    if depth == 4 or generator.random() < 0.3:
        return generator.choice(shared or values) if generator.random() < 0.5 else generator.choice(values)
    items = [random_object(generator, shared, depth + 1) for _ in range(generator.randrange(5))]
    made: object = generator.choice((list, tuple, lambda parts: dict(enumerate(parts))))(items)
    shared.append(made)
    return made


def test_opcodes_are_counted_as_with_pickletools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_OBJECTS", 15)
    generator = random.Random(0)
    accepted = 0
    for number in range(300):
        data = pickle.dumps(random_object(generator, []), protocol=number % 6)
        expected = accepts_by_pickletools(data, 15)
        accepted += expected
        if expected:
            assert pickles.count_containers(data + b"rest", 0) == len(data)
        else:
            with pytest.raises(ValueError, match="contains itself too often"):
                pickles.check_pickle(data)
        with pytest.raises((ValueError, IndexError)):
            pickles.count_containers(data[: generator.randrange(len(data))], 0)
    assert 100 < accepted < 280


def test_pickles_longer_than_the_first_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "FIRST_READ", 64)
    path = tmp_path / "weights.pth"
    torch.save({f"layer{number}": torch.zeros(2) for number in range(500)}, path, _use_new_zipfile_serialization=False)
    check_pickles(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="a pickle is incomplete"):
        check_pickles(path)
