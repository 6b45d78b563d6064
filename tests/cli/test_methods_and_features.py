"""Methods by name with settings, groups of them, what does not fit, features, and the pages made from the classes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.cli import main as cli
from seewhy.errors import MethodError, UnknownName, UsageError
from seewhy.methods import LayerCAM, ScoreCAM, Smooth
from seewhy.methods.base import NetworkMethod
from seewhy.methods.cards import cards
from seewhy.methods.catalog import METHODS
from seewhy.methods.method_text import parse_method
from seewhy.methods.parsing import as_methods
from support.networks import TwiceNet, tiny_network
from support.paths import ROOT

COFFEE = str(seewhy.sample("coffee"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        cli.main([*arguments])
    captured = capsys.readouterr()
    return int(left.value.code or 0), captured.out, captured.err


# --- names and settings -----------------------------------------------------------------------------------------------


def test_names_with_settings() -> None:
    made = as_methods(["scorecam(batch_size=64)", "Smooth(layercam, samples=16, sigma=0.1)", "smooth(hirescam)"])
    assert list(made.values())[:2] == [ScoreCAM(batch_size=64), Smooth(LayerCAM(), samples=16, sigma=0.1)]
    assert list(made) == ["scorecam(batch_size=64)", "smooth(layercam,sigma=0.1)", "smooth(hirescam)"]


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: entry.name)
def test_a_methods_string_is_how_one_may_type_it(entry: object) -> None:
    name = entry.name  # type: ignore[attr-defined]
    (made,) = as_methods(name).values()
    assert str(made) == name
    assert as_methods(str(made)) == {name: made}


@pytest.mark.parametrize(
    "text",
    [
        "scorecam(variant=gradcam)",
        "smooth(finercam(layercam,gamma=1.0),samples=2)",
        "augmented(sizes=(1.0, 1.5))",
        "layercam(gamma=2.0)",
    ],
)
def test_settings_survive_the_way_through_text(text: str) -> None:
    (made,) = as_methods(text).values()
    assert as_methods(str(made)) == {str(made): made}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scorcam", "no method 'scorcam' - did you mean 'scorecam'"),
        ("scorecam(batch=3)", "method scorecam: it has no setting 'batch' - did you mean batch_size?"),
        ("scorecam(batch_size=0)", "method scorecam: batch_size=0: give at least 1, or None."),
        ("scorecam(variant=best)", "method scorecam: variant='best': give one of authors, paper, gradcam, torchcam."),
        ("scorecam(batch_size=many)", "method scorecam: batch_size=many: give a whole number."),
        ("gradcam(1)", "method gradcam: it has 0 settings, and 1 values were given."),
        ("cam(x=1)", "method cam: it has no setting 'x'."),
        ("smooth(layercam", "a bracket is not closed"),
        ("smooth(samples=few)", "method smooth: samples=few: give a whole number."),
        ("smooth(rise)", "method smooth: base=rise: give a method that makes a map of one layer, such as gradcam."),
        ("smooth(gradkam)", "method smooth: base=gradkam: give a method"),
        ("smooth(sigma=-1)", "method smooth: sigma=-1.0: give 0 or more."),
        ("finercam(scorecam)", "method finercam: base=scorecam does not follow the score's gradient; take gradcam."),
        ("finercam(shapleycam)", "does not follow the score's gradient"),
        ("eigensmooth(eigencam)", "method eigensmooth: eigencam is no sum over channels"),
        ("occlusion(window=2)", "method occlusion: window=2.0: give a share of the side"),
        ("rise(p=1)", "method rise: p=1.0: give a probability between 0 and 1."),
        ("attentionrollout(heads=sum)", "method attentionrollout: heads='sum': give 'mean', 'max' or 'min'."),
    ],
)
def test_wrong_names_and_settings_say_what_fits(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        as_methods(text)
    assert message in str(error.value)


def test_a_misspelt_method_answers_before_torch_is_imported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, COFFEE, "--methods", "gradcam,smooth(layrcam)", "-o", str(tmp_path / "out"))
    assert (code, out) == (2, "") and "layrcam" in err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UnknownName):
        parse_method("gradcamm")


# --- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("attentionrollout", "no attention from every token to every token; take gradcam"),
        ("gradeclip", "no attention from every token to every token; take gradcam"),
        ("cam", "by one linear layer, and between them lies more (or another layer); take hirescam"),
        ("refinecam", "it joins layers, and there is 1: choose several, or layers='every'"),
        ("guidedgradcam", "it is defined for ReLU, and this network has silu; take gradcam"),
        ("cameras", "the model does not take inputs of size"),
    ],
)
def test_a_method_that_does_not_fit_says_why_and_what_to_take(method: str, message: str) -> None:
    net, inputs = tiny_network(TwiceNet)
    with pytest.raises(MethodError) as error:
        seewhy.explain(net, inputs, methods=method, layers="last", targets=0)
    assert message in str(error.value) and error.value.method == method


def test_a_method_is_left_out_where_it_does_not_fit_a_group_of_layers(embedded: seewhy.LoadedModel) -> None:
    e = seewhy.explain(embedded, COFFEE, methods=["gradcam", "cam"], layers=["Conv2d", "BatchNormAct2d"])
    assert e.layers_of("cam") == ("bn2",) and len(e.layers_of("gradcam")) > 90
    assert any(note.startswith("cam is left out at") for note in e.notes)


def test_all_methods_that_fit() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip
    e = seewhy.explain(net, torch.rand(1, 3, 12, 12), methods="all", layers=["0", "3"], targets=1)
    fitting = {name.partition("#")[0] for name in e.methods}
    transformers = {"attentionrollout", "attentionrelevance", "legrad", "gradeclip", "vitreciprocam"}
    assert fitting == {entry.name for entry in METHODS} - transformers
    assert {note.split()[0] for note in e.notes if "left out" in note} == {*transformers, "cam"}
    assert e.layers_of("cam") == ("3",) and e.layers_of("fullgrad") == ("network",)
    done: list[tuple[int, int]] = []
    seewhy.explain(net, torch.rand(1, 3, 12, 12), methods="fast", layers="3", progress=lambda *row: done.append(row))
    assert done[0] == (0, 0)  # nothing that asks again


def test_methods_together_are_each_alone(embedded: seewhy.LoadedModel) -> None:
    """Sharing passes changes nothing: the same numbers as one call for each method and layer."""
    names = ["gradcam", "shapleycam", "finercam", "eigencam", "smooth(samples=2)", "smooth(layercam,samples=2)"]
    layers = ["blocks.5.2.conv_pwl", "bn2"]
    targets = [967, 504]
    together = seewhy.explain(embedded, COFFEE, methods=names, layers=layers, targets=targets)
    for key, maps in together.maps.items():
        method, target, layer = key
        alone = seewhy.explain(embedded, COFFEE, methods=method, layers=layer, targets=int(target))
        torch.testing.assert_close(alone.map(), maps[0], rtol=1e-4, atol=1e-5 * float(maps.abs().max()))


def test_methods_of_the_whole_network_take_the_suggested_layer_for_no_layer() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    for layers in ("suggested", ["suggested"], [None], None):
        e = seewhy.explain(net, torch.rand(1, 3, 8, 8), methods="rise(masks=4)", layers=layers)
        assert e.layers == ("network",)
    with pytest.raises(UnknownName, match="no layer 'sugested'"):
        seewhy.explain(net, torch.rand(1, 3, 8, 8), methods="rise(masks=4)", layers=["suggested", "sugested"])


def test_layers_are_not_looked_for_where_none_is_needed() -> None:
    """RISE and occlusion ask the network alone, which need not have a grid."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    e = seewhy.explain(net, torch.rand(2, 3, 8, 8), methods=["rise(masks=20)", "occlusion"], targets=1)
    assert e.layers == ("network",) and e.map(method="occlusion").shape == (2, 8, 8)


# --- memory and progress ----------------------------------------------------------------------------------------------


def test_the_memory_budget_limits_the_rows_and_changes_nothing() -> None:
    net, inputs = tiny_network(TwiceNet, dtype=torch.float64)
    seen: list[int] = []
    net.first.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    few = seewhy.explain(net, inputs[:1], methods="scorecam", layers="last", targets=0, memory=0.03)
    most, seen[:] = max(seen), []
    many = seewhy.explain(net, inputs[:1], methods="scorecam", layers="last", targets=0)
    assert most < 6 and max(seen) == 6
    torch.testing.assert_close(few.map(), many.map(), rtol=1e-12, atol=0)


def test_several_targets_share_the_forwards() -> None:
    net, inputs = tiny_network(TwiceNet, dtype=torch.float64)
    seen: list[int] = []
    net.first.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    methods = ["scorecam", "iscam(steps=2)", "sscam(samples=2)", "rise(masks=8)", "occlusion(window=0.5,stride=0.25)"]
    rows: list[int] = []
    for targets in ([0], [0, 1, 2]):
        seen[:] = []
        e = seewhy.explain(net, inputs, methods=methods, layers="last", targets=targets)
        rows.append(sum(seen))
    assert rows[0] == rows[1] > 50
    for method in methods:
        alone = seewhy.explain(net, inputs, methods=method, layers="last", targets=2)
        torch.testing.assert_close(
            alone.map(), e.map(method=e.methods[methods.index(method)], target=2), rtol=0, atol=0
        )


def test_progress_counts_the_rows_that_were_announced() -> None:
    net, inputs = tiny_network(TwiceNet)
    rows: list[tuple[int, int]] = []
    methods = ["scorecam", "ablationcam", "smooth(samples=4)"]
    seewhy.explain(net, inputs, methods=methods, layers="last", targets=0, progress=lambda *row: rows.append(row))
    assert rows[0] == (0, 2 * (6 + 6 + 12)) and rows[-1] == (48, 48)


def test_the_cost_is_said_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, COFFEE, "--methods", "rise(masks=100)", "-o", str(tmp_path))
    assert code == 0 and "the methods ask the network again: about 100 forwards" in err
    assert "network" in out and (tmp_path / "coffee" / "overlays" / "01_network.jpg").exists()


# --- the command ------------------------------------------------------------------------------------------------------


def test_methods_with_settings_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    methods = "gradcam,smooth(layercam,samples=2),dff(concepts=2),fullgrad"
    code, _, err = run(capsys, COFFEE, "--methods", methods, "--layers", "bn2", "-o", str(tmp_path))
    assert (code, err) == (0, "")
    with np.load(tmp_path / "coffee" / "maps.npz") as maps:
        assert sorted(maps.files) == [
            "deepfeaturefactorization(concepts=2)#1|967|bn2", "deepfeaturefactorization(concepts=2)#2|967|bn2",
            "fullgrad|967|network", "gradcam|967|bn2", "smooth(layercam,samples=2)|967|bn2",
        ]  # fmt: skip
    again = seewhy.load_explanation(tmp_path / "coffee")
    assert again.layers_of("fullgrad") == ("network",)
    folder = tmp_path / "coffee" / "overlays" / "smooth_layercam_samples_2_"
    assert [path.name for path in folder.rglob("*.jpg")] == ["01_bn2.jpg"]


def test_features_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "features", COFFEE, "--layers", "conv_stem,bn2", "--channels", "3", "-o", str(tmp_path))
    assert code == 0 and "features.jpg" in out
    with Image.open(tmp_path / "coffee" / "features.jpg") as sheet:
        assert sheet.width > 4 * 150
    assert not (tmp_path / "coffee" / "overlays").exists()
    assert run(capsys, "features")[0] == 2
    assert run(capsys, "features", COFFEE, "--channels", "0")[0] == 2


def test_methods_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "methods")
    assert code == 0
    for entry in METHODS:
        assert f"\n{entry.name} " in f"\n{out}"
    code, out, _ = run(capsys, "methods", "score-cam")
    assert code == 0 and "settings: variant=authors, batch_size=None" in out and "CVPRW 2020" in out
    listed = json.loads(run(capsys, "methods", "--json")[1])
    assert [card["name"] for card in listed] == [entry.name for entry in METHODS]
    assert run(capsys, "methods", "scorcam")[0] == 2


# --- features in Python -----------------------------------------------------------------------------------------------


def test_the_strongest_channels_are_those_that_vary_most() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([0.0, 3.0, 1.0, 4.0, 2.0])[:, None, None, None].expand(5, 3, 1, 1))
    e = seewhy.explain(net, torch.rand(2, 3, 6, 6), layers="0", channels=3)
    found = e.features("0")
    assert found.channels.tolist() == [[3, 1, 4], [3, 1, 4]] and found.maps.shape == (2, 3, 6, 6)
    torch.testing.assert_close(found.maps[:, 0], 4 / 3 * found.maps[:, 1])
    assert e[1].features().maps.shape == (1, 3, 6, 6)
    with pytest.raises(UsageError, match=r"call explain\(\.\.\., channels=8\)"):
        seewhy.explain(net, torch.rand(1, 3, 6, 6), layers="0").features()


# --- the pages made from the classes ----------------------------------------------------------------------------------


def test_every_card_is_complete() -> None:
    for card in cards():
        facts = card.card
        assert facts.paper and facts.formula and facts.expect.endswith("."), card.entry.name
        assert facts.cost and facts.works_on, card.entry.name
        assert len(card.doc.split("\n\n")) >= 2, f"{card.entry.name}: what it does, then the paper"


def test_the_page_of_methods_is_made_from_the_classes() -> None:
    spec = importlib.util.spec_from_file_location("make_methods", ROOT / "docs" / "make_methods.py")
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    written = (ROOT / "docs" / "methods.md").read_text("utf-8")
    assert written == maker.page(), "say: python docs/make_methods.py"


def test_methods_of_the_network_have_one_map_whatever_the_layers(embedded: seewhy.LoadedModel) -> None:
    (method,) = as_methods("refinecam").values()
    assert isinstance(method, NetworkMethod)
    e = seewhy.explain(embedded, COFFEE, methods=["gradcam", "refinecam"], layers="every")
    assert e.map(method="refinecam").shape == (224, 224) and len(e.layers_of("gradcam")) == 49
