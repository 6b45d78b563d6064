"""Commands that list what can be selected: layers, methods, models."""

from __future__ import annotations

from typing import Any

from seewhy.cli.argument_errors import Integer
from seewhy.cli.exits import print_status
from seewhy.cli.garbage_collection import paused_collection
from seewhy.engine.options import ModelOptions
from seewhy.errors import UnknownName


def layers(
    model: str | None = None,
    /,
    *,
    all: bool = False,
    size: str | None = None,
    num_classes: Integer | None = None,
    json: bool = False,
    allow_code: bool = False,
) -> int:
    """List the layers of a model as a tree, with grid sizes and the suggested layer.

    Parameters
    ----------
    model
        A model as for --model. Default: the embedded network.
    all
        Include every module whose output has a grid, not only the layers of "every".
    size
        Side of the input ("224"; for a signal its length) or axes ("224x320"), if the model does not define them.
    num_classes
        As for the main command.
    json
        Print one JSON object.
    allow_code
        As for the main command.
    """
    with paused_collection():
        from seewhy.cli.layer_table import print_layer_table
        from seewhy.models.loading import load_model

    options = ModelOptions(model=model, num_classes=num_classes, allow_code=allow_code)
    loaded = load_model(options.uri, log=print_status, allow_code=allow_code)
    for note in loaded.notes:
        print_status(note)
    return print_layer_table(loaded, include_all=all, size=size, as_json=json)


def methods(name: str | None = None, /, *, markdown: bool = False, json: bool = False) -> int:
    """List the methods: name, formula, paper, what to expect, and cost.

    Parameters
    ----------
    name
        Print everything about one method.
    markdown
        Print the tables and sections of docs/methods.md.
    json
        Print a JSON list.
    """
    from seewhy.methods import cards
    from seewhy.terminal import encode_json

    found = cards.cards(name)
    if json:
        print(encode_json([card.to_dict() for card in found]))
    elif markdown:
        print(cards.markdown(found))
    else:
        print_methods([card.to_dict() for card in found], in_detail=name is not None)
    return 0


def print_methods(cards: list[dict[str, Any]], *, in_detail: bool) -> None:
    """Print formula, paper, expectation and cost of methods; `in_detail` adds settings, needs and pitfalls."""
    from seewhy.terminal import ACCENT, FAINT, make_console, plain, print_details

    console = make_console()
    for card in cards:
        name, formula, paper = (plain(card[key]) for key in ("name", "formula", "paper"))
        console.print(f"[bold {ACCENT}]{name}[/]  {formula}  [{FAINT}]{paper}[/]", soft_wrap=True)
        console.print(f"    {plain(card['expect'])} [{FAINT}]Cost: {plain(card['cost'])}.[/]", soft_wrap=True)
        if in_detail:
            print_details(
                console,
                {
                    "settings": ", ".join(card["settings"]), "needs": ", ".join(card["needs"]),
                    "returns": card["returns"], "works on": card["works_on"], "source": card["source"],
                    "pitfalls": card["pitfalls"],
                },
            )  # fmt: skip
            console.print()
            for line in card["doc"].splitlines():  # `plain` returns one line
                console.print(plain(line), style=FAINT)


def models(pattern: str = "*", /) -> int:
    """List the models that can be loaded by name.

    Parameters
    ----------
    pattern
        A glob ("timm/*vit*") or a part of the name ("resnet").
    """
    from seewhy.models.loading import list_models

    names = list_models(pattern)
    if not names:
        raise UnknownName("model", pattern, list_models(), hint="List all models: seewhy models")
    print("\n".join(names))
    return 0
