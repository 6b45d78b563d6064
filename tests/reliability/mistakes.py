"""Ordinary mistakes of users: each must end with one line that says what was wrong, what was given, and what to do."""

from __future__ import annotations

from pathlib import Path

from reliability.faults import EXPORT, WEIGHTS, Fault, nothing
from reliability.groups import Result
from reliability.situations import BULK, FAST, Prepare, finished_run, saved, text_file, weights

CODE = 2


def mistake(title: str, command: str, contains: str, prepare: Prepare = nothing, code: int = CODE) -> Fault:
    """Return a case that writes nothing, and whose message contains a text."""
    return Fault(
        title, tuple(command.split(" ")), contains, codes=(code,), contains=contains, prepare=prepare, outputs=()
    )


def script(name: str, text: str) -> Prepare:
    return text_file(name, *text.split(";"))


def no_photo(folder: Path) -> None:
    saved(folder)
    (folder / "run/photo.jpg").unlink()


def empty_folder(folder: Path) -> None:
    (folder / "empty").mkdir()


def table(folder: Path) -> None:
    (folder / "images.csv").write_text("photograph,class\na.png,cat\n")


BULK_JOB = " ".join(("bulk", *BULK))
CLASSIFIER = " ".join(("a.png", *FAST))
WITH_WEIGHTS = " ".join((CLASSIFIER, *WEIGHTS))

MISTAKES = (
    # images
    mistake("a misspelled file name", "b.png", "did you mean 'a.png'", code=1),
    mistake("a folder without images", "empty", "no images in this folder", empty_folder),
    mistake("a PDF as an image", "page.pdf", "is a PDF document", text_file("page.pdf", "%PDF-1.7"), code=1),
    mistake("a text file as an image", "notes.txt", "not an image", text_file("notes.txt", "hello"), code=1),
    mistake("a web address as an image", "https://example.com/bus.jpg", "download", code=1),
    # options
    mistake("a misspelled option", f"{CLASSIFIER} --outt x", "--out"),
    mistake("one dash instead of two", "a.png -layers suggested", "--layers"),
    mistake("an option of another command", "features a.png --methods gradcam", "the main command has it"),
    mistake("values separated by spaces", "a.png --methods gradcam layercam", "--methods gradcam,layercam"),
    mistake("an image for the local app", "serve a.png", "drop the image into the page"),
    mistake("a misspelled command", "sumary run", "summary"),
    mistake("text for a number", f"{CLASSIFIER} --opacity 50%", "such as 0.5"),
    mistake("a number out of its range", f"{CLASSIFIER} --memory 0", "above 0"),
    mistake("a misspelled choice", f"{CLASSIFIER} --style clasic", "Did you mean classic"),
    mistake("a device that this machine does not have", f"{CLASSIFIER} --device tpu", "Use auto"),
    # methods and layers
    mistake("a misspelled method", f"{CLASSIFIER} --methods gradcan", "did you mean 'gradcam'"),
    mistake("a misspelled setting", f"{CLASSIFIER} --methods scorecam(batchsize=4)", "batch_size"),
    mistake("a setting out of its range", f"{CLASSIFIER} --methods occlusion(window=3)", "at most 1"),
    mistake("a method for transformers", f"{CLASSIFIER} --methods attentionrollout", "needs a transformer"),
    mistake("a misspelled layer", "a.png --layers blocks.66", "List them: seewhy layers"),
    mistake("a number of a layer that does not exist", "a.png --layers 500", "0 to"),
    mistake("a layer without positions", "a.png --layers classifier", "has no grid"),
    # targets
    mistake("a misspelled class", f"{CLASSIFIER} --targets espreso", "did you mean 'espresso'"),
    mistake("a name of several classes", f"{CLASSIFIER} --targets crane", "classes have this name"),
    mistake("an index of a class that does not exist", f"{CLASSIFIER} --targets 1000", "0 to 999"),
    mistake("a negative index", f"{CLASSIFIER} --targets -3", "0 to 999"),
    mistake("a region of a classifier", f"{CLASSIFIER} --targets region:espresso", "needs a segmentation model"),
    mistake("a box of a classifier", f"{CLASSIFIER} --targets box:1,2,30,40", "needs a detector"),
    mistake("a text for a model without texts", f"{CLASSIFIER} --targets text:bus", "no text encoder"),
    mistake("a class compared with itself", f"{CLASSIFIER} --targets 1 --versus 1", "another class"),
    # models
    mistake("a misspelled model", f"{CLASSIFIER} --model resnet18x", "did you mean 'resnet18'"),
    mistake("weights without an architecture", f"{CLASSIFIER} --model weights.pth", "?arch=", weights("plain")),
    mistake("weights of another architecture", f"{CLASSIFIER} --model weights.pth?arch=torchvision/vgg11",
            "torchvision/vgg11", weights("plain")),
    mistake("weights that do not exist", WITH_WEIGHTS, "no such file"),
    mistake("a text file as weights", WITH_WEIGHTS, "weights file", text_file("weights.pth", "hello")),
    mistake("labels for another number of classes", f"{CLASSIFIER} --labels names.txt", "2 labels",
            text_file("names.txt", "cat", "dog")),
    mistake("an empty file of labels", f"{CLASSIFIER} --labels names.txt", "is empty", text_file("names.txt", "")),
    mistake("code that is not allowed", f"{CLASSIFIER} --model nets:build", "--allow-code", script("nets.py", "x = 1")),
    mistake("a function that does not exist", f"{CLASSIFIER} --model nets:bild --allow-code", "has no function 'bild'",
            script("nets.py", "def build():;    return None")),
    mistake("a model that raises an error", f"{CLASSIFIER} --model nets:build --allow-code", "ZeroDivisionError",
            script("nets.py", "def build():;    return 1 / 0")),
    # saved results
    mistake("a folder that was not saved", "report empty", "empty", empty_folder),
    mistake("the record instead of its folder", "report run/explanation.json", "Pass its folder: run", saved),
    mistake("a photo that was deleted", "report run", "photo.jpg", no_photo),
    # datasets
    mistake("no output folder", "bulk images", "--out run", finished_run),
    mistake("a table without a column of paths", "bulk images.csv --out new", "name one of them path", table),
    mistake("a run with other settings", f"{BULK_JOB} --methods layercam -o run", "Choose another folder", finished_run),
    mistake("a target that the run does not have", "export run --to png --target top9 -o new", "top9", finished_run),
    mistake("a format that does not exist", "export run --to svg -o new", "npz", finished_run),
    mistake("an export without a folder", " ".join(EXPORT) + " --to png", "--out", finished_run),
    mistake("images instead of a run", "summary images", "seewhy bulk", finished_run),
)  # fmt: skip


def run_mistake(number: int, folder: Path) -> Result:
    return MISTAKES[number].run(folder)
