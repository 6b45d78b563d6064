"""Methods as text: names, settings, invalid settings, and the reference pages that are generated from the classes."""

from __future__ import annotations

import pytest

from seewhy.errors import UnknownName, UsageError
from seewhy.methods import LayerCAM, ScoreCAM, Smooth
from seewhy.methods.cards import cards
from seewhy.methods.catalog import METHODS, MethodEntry
from seewhy.methods.method_text import parse_method
from seewhy.methods.parsing import as_methods
from support.docs_scripts import load_docs_script
from support.paths import ROOT


def test_names_with_settings() -> None:
    methods = as_methods(["scorecam(batch_size=64)", "Smooth(layercam, samples=16, sigma=0.1)", "smooth(hirescam)"])
    assert list(methods.values())[:2] == [ScoreCAM(batch_size=64), Smooth(LayerCAM(), samples=16, sigma=0.1)]
    assert list(methods) == ["scorecam(batch_size=64)", "smooth(layercam,sigma=0.1)", "smooth(hirescam)"]


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: entry.name)
def test_text_of_a_method_is_its_name(entry: MethodEntry) -> None:
    (method,) = as_methods(entry.name).values()
    assert str(method) == entry.name
    assert as_methods(str(method)) == {entry.name: method}


@pytest.mark.parametrize(
    "text",
    [
        "scorecam(variant=gradcam)",
        "smooth(finercam(layercam,gamma=1.0),samples=2)",
        "augmented(sizes=(1.0, 1.5))",
        "layercam(gamma=2.0)",
    ],
)
def test_text_of_a_method_with_settings_parses_to_an_equal_method(text: str) -> None:
    (method,) = as_methods(text).values()
    assert as_methods(str(method)) == {str(method): method}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scorcam", "no method 'scorcam' - did you mean 'scorecam'"),
        ("scorecam(batch=3)", "method scorecam: it has no setting 'batch' - did you mean batch_size?"),
        ("scorecam(batch_size=0)", "method scorecam: batch_size=0: must be at least 1, or None."),
        ("scorecam(variant=best)", "scorecam: variant='best': must be one of authors, paper, gradcam, torchcam."),
        ("scorecam(batch_size=many)", "method scorecam: batch_size=many: must be an integer."),
        ("gradcam(1)", "method gradcam: it has 0 settings, but 1 values were passed."),
        ("layercam(gamma=1, gamma=2)", "method layercam: the setting gamma is given twice."),
        ("layercam(1, gamma=2)", "method layercam: the setting gamma is given twice."),
        ("cam(x=1)", "method cam: it has no setting 'x'."),
        ("smooth(layercam", "a bracket is not closed"),
        ("smooth(samples=few)", "method smooth: samples=few: must be an integer."),
        ("smooth(rise)", "method smooth: base=rise: must be a method with one map per layer, such as gradcam."),
        ("smooth(gradkam)", "method smooth: base=gradkam: must be a method"),
        ("smooth(sigma=-1)", "method smooth: sigma=-1.0: must be 0 or more."),
        ("finercam(scorecam)", "finercam: base=scorecam does not follow the score's gradient. Use gradcam."),
        ("finercam(shapleycam)", "does not follow the score's gradient"),
        ("eigensmooth(eigencam)", "method eigensmooth: eigencam is no sum over channels"),
        ("occlusion(window=2)", "method occlusion: window=2.0: must be a fraction of the side"),
        ("rise(p=1)", "method rise: p=1.0: must be a probability between 0 and 1."),
        ("attentionrollout(heads=sum)", "method attentionrollout: heads='sum': must be 'mean', 'max' or 'min'."),
    ],
)
def test_invalid_names_and_settings(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        as_methods(text)
    assert message in str(error.value)


def test_parse_method_with_an_unknown_name() -> None:
    with pytest.raises(UnknownName):
        parse_method("gradcamm")


def test_every_method_has_a_complete_reference() -> None:
    for reference in cards():
        card, name = reference.card, reference.entry.name
        assert card.paper and card.formula and card.expect.endswith("."), name
        assert card.cost and card.works_on, name
        assert len(reference.doc.split("\n\n")) >= 2, f"{name}: the docstring needs a summary and the paper"


def test_methods_page_is_generated_from_the_classes() -> None:
    script = load_docs_script("make_methods")
    page = (ROOT / "docs" / "methods.md").read_text("utf-8")
    assert page == script.page(), "update the page: python docs/make_methods.py"
