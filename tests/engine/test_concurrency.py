"""Threads, processes, event loops, copies, Ctrl-C and many calls: the same maps, an unchanged model, and no growth."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from support.part_networks import make

METHODS = ["gradcam", "layercam", "ablationcam"]


class Tokens(nn.Module):
    """Patches, a class token, one transformer layer; an activation in place before them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.ReLU(inplace=True))
        self.special = nn.Parameter(torch.randn(1, 1, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.special.expand(len(tokens), -1, -1), tokens], 1)
        return self.head(self.block(tokens)[:, 1:].mean(1))  # type: ignore[no-any-return]


def network(seed: int = 0) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    return Tokens().double().eval(), torch.randn(2, 3, 48, 40, dtype=torch.float64)


def maps_of(seed: int) -> dict[tuple[str, str, str], Tensor]:
    """Explain a new network; runs in other threads and processes."""
    net, inputs = network(seed)
    e = seewhy.explain(net, inputs, methods=METHODS, layers=["stem", "suggested"], targets=1)
    return {key: maps.clone() for key, maps in e.maps.items()}


def same(one: dict[Any, Tensor], other: dict[Any, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[key], other[key], atol=1e-12) for key in one)


@pytest.fixture
def frequent_switches() -> Any:
    """Threads take turns 1,000 times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_make_the_first_calls_of_one_model_at_once(frequent_switches: None) -> None:
    """What the first call observes about a model (overwritten outputs, token places, parts) is cached by all threads."""
    for make_network in (network, lambda: make("time major", 2)):
        net, inputs = make_network()
        expected = dict(seewhy.explain(copy.deepcopy(net), inputs, methods=METHODS, layers="all", targets=1).maps)

        def explain(number: int, net: nn.Module = net, inputs: Tensor = inputs) -> dict[Any, Tensor]:
            return dict(seewhy.explain(net, inputs, methods=METHODS, layers="all", targets=1).maps)

        with ThreadPoolExecutor(8) as pool:
            assert all(same(maps, expected) for maps in pool.map(explain, range(16)))


def test_threads_with_their_own_models(frequent_switches: None) -> None:
    expected = [maps_of(seed) for seed in range(6)]
    with ThreadPoolExecutor(1) as pool:  # building networks uses the global random state
        networks = list(pool.map(network, range(6)))

    def explain(pair: tuple[nn.Module, Tensor]) -> dict[Any, Tensor]:
        e = seewhy.explain(*pair, methods=METHODS, layers=["stem", "suggested"], targets=1)
        return dict(e.maps)

    with ThreadPoolExecutor(6) as pool:
        assert all(same(one, other) for one, other in zip(pool.map(explain, networks), expected, strict=True))


def test_an_event_loop() -> None:
    expected = maps_of(0)

    async def run() -> list[dict[Any, Tensor]]:
        net, inputs = network(0)

        def explain() -> dict[Any, Tensor]:
            return dict(seewhy.explain(net, inputs, methods=METHODS, layers=["stem", "suggested"], targets=1).maps)

        return await asyncio.gather(*(asyncio.to_thread(explain) for _ in range(6)))

    assert all(same(maps, expected) for maps in asyncio.run(run()))


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_processes(start: str) -> None:
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip("this platform cannot fork")
    expected = maps_of(3)  # before the fork: children inherit the caches
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(start), initializer=one_thread) as pool:
        assert all(same(maps, expected) for maps in pool.map(maps_of, [3, 3], timeout=120))


def one_thread() -> None:
    torch.set_num_threads(1)  # the thread pool of the parent does not exist after a fork


def test_explanations_are_pickled_and_copied() -> None:
    net, inputs = network()
    e = seewhy.explain(net, inputs, methods=METHODS, layers=["stem", "suggested"], targets=[1, 2])
    for restored in (pickle.loads(pickle.dumps(e)), copy.deepcopy(e), copy.copy(e)):
        assert same(dict(restored.maps), dict(e.maps))
        assert restored.layer_info == e.layer_info and restored.notes == e.notes
        assert torch.equal(restored.heatmap("gradcam", 1, "stem"), e.heatmap("gradcam", 1, "stem"))
    parts = seewhy.explain(*make("tiles", 1), targets=1)
    assert torch.equal(pickle.loads(pickle.dumps(parts)).heatmap(), parts.heatmap())


def test_a_copied_model_does_not_use_what_is_known_about_the_original() -> None:
    net, inputs = network()
    seewhy.explain(net, inputs, layers="all")
    changed = copy.deepcopy(net)
    changed.stem[1] = nn.ReLU()  # nothing is overwritten any more
    changed.stem.append(nn.AvgPool2d(2))  # another grid of tokens
    e = seewhy.explain(changed, inputs, targets=1)
    assert e.layer_info[e.layers[0]].grid == (3, 2)
    assert (
        seewhy.explain(net, inputs, targets=1).layer_info["block.norm2" if "block.norm2" in e.layers else "block"].grid
    )


def interrupt_at(count: int) -> Callable[[FrameType, str, Any], Any]:
    """Return a trace function that raises KeyboardInterrupt at the `count`th call of a function of seewhy."""
    calls = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal calls
        if event == "call" and "/seewhy/" in frame.f_code.co_filename:
            calls += 1
            if calls == count:
                raise KeyboardInterrupt
        return None

    return trace


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # while Python closes a generator
def test_ctrl_c_at_any_point_leaves_the_model_unchanged() -> None:
    """The next call gives the maps of an undisturbed call, whatever was known about the model when it was interrupted."""
    expected = maps_of(0)
    state = {name: value.clone() for name, value in network(0)[0].state_dict().items()}
    for count in (1, 5, 20, 60, 130, 250, 400, 600, 900, 1300, 1800, 2500):
        net, inputs = network(0)
        sys.settrace(interrupt_at(count))
        try:
            seewhy.explain(net, inputs, methods=METHODS, layers=["stem", "suggested"], targets=1)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert not net.training and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
        e = seewhy.explain(net, inputs, methods=METHODS, layers=["stem", "suggested"], targets=1)
        assert same(dict(e.maps), expected)


def grown(calls: int) -> dict[str, int]:
    """Return how many objects of a type there are more after `calls` explanations with new targets and layers."""
    net, inputs = network()
    parts_net, clips = make("recurrent", 1)

    def explain(number: int) -> None:
        seewhy.explain(net, inputs[:1], layers="suggested", targets=lambda output: output[:, number % 5])
        if not number % 10:
            seewhy.explain(parts_net, clips, targets=number % 4)

    def count() -> dict[str, int]:
        gc.collect()
        counts: dict[str, int] = {}
        for item in gc.get_objects():
            counts[type(item).__name__] = counts.get(type(item).__name__, 0) + 1
        return counts

    for number in range(80):  # fills the caches
        explain(number)
    before = count()
    for number in range(calls):
        explain(number)
    after = count()
    return {name: after[name] - before.get(name, 0) for name in after if after[name] - before.get(name, 0) > 60}


def test_calls_do_not_add_objects() -> None:
    assert grown(150) == {}


@pytest.mark.full
def test_10_000_calls_do_not_add_objects() -> None:
    assert grown(10_000) == {}
