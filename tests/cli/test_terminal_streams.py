"""What reaches the terminal: no control characters from outside, readable text in every encoding, one line of error."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import seewhy.cli.main as cli
from seewhy.cli.exits import print_error, print_status, run_command
from seewhy.errors import UsageError
from seewhy.terminal import LayerRow, make_console, plain, print_layers, print_predictions, printable
from seewhy.terminal.console import SafeConsole
from seewhy.terminal.escaping import printable_lines
from seewhy.terminal.streams import escaped_streams
from support.command import COFFEE, run

HOSTILE = {
    "color": "\x1b[31m", "title": "\x1b]0;t\x07", "link": "\x1b]8;;http://x\x1b\\y", "C1": "\x9b31m", "bell": "\x07",
    "backspace": "a\b", "return": "a\rb", "newline": "a\nb", "override": "\u202etxt.exe", "isolate": "\u2066x",
    "zero width": "a\u200bb", "joiner": "a\u200db", "separator": "a\u2028b", "surrogate": "caf\udce9",
    "BOM": "\ufeffa", "delete": "\x7f", "tag": "a\U000e0041",
}  # fmt: skip
HARMLESS = ["می‌خواهم", "क्‍ष", "👩‍💻", "日本　語", "a\u00a0b", "שלום\u200f!", "café", "❤️"]
STYLE = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_control_characters_are_escaped(text: str) -> None:
    assert printable(text).isprintable() and "\\" in printable(text)
    lines = printable_lines(text)
    assert all(line.isprintable() for line in lines.split("\n")) and ("\\" in lines or text == "a\nb")


@pytest.mark.parametrize("text", HARMLESS)
def test_names_in_other_scripts_are_unchanged(text: str) -> None:
    assert printable(text) == text == printable_lines(text)


class Screen:
    """A terminal of 80 columns as stdout and stderr. `text` is what it received."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.received = b""
        self.reader = threading.Thread(target=self.read)  # a terminal holds 4 KB that are not read
        self.reader.start()

    def read(self) -> None:
        with suppress(OSError):  # the other end is closed
            while part := os.read(self.master, 1 << 16):
                self.received += part

    @property
    def text(self) -> str:
        """What the terminal received. It is closed."""
        self.stream.close()
        self.reader.join()
        return self.received.decode().replace("\r\n", "\n")


@contextmanager
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """Start a screen. Not a fixture, because pytest replaces the streams between the setup and the call of a test."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    started = Screen()
    monkeypatch.setattr(sys, "stdout", started.stream)
    monkeypatch.setattr(sys, "stderr", started.stream)
    with escaped_streams():
        yield started
    started.stream.close()
    started.reader.join()
    os.close(started.master)


@pytest.mark.parametrize("text", [text for text in HOSTILE.values() if text != "a\nb"])
def test_escape_sequences_on_a_terminal_come_from_styles_only(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with screen(monkeypatch) as terminal:
        print_everywhere(text)
        shown = terminal.text
    assert STYLE.search(shown)
    assert all(line.isprintable() for line in STYLE.sub("", shown).split("\n"))


def print_everywhere(text: str) -> None:
    console = make_console()
    console.print(f"[bold]{plain(text)}[/]")
    console.print(f"[red]{text.replace('[', '(')}[/]")  # a call site that does not escape
    print_layers(console, [LayerRow(text, text, 0.5, (text,), is_suggested=True)], text, text)
    print_predictions(console, [(1, text, 0.5)], [1])
    print_status(text)
    print_error(text)
    print(text)
    print(text, file=sys.stderr)
    sys.stderr.write(warnings.formatwarning(text, UserWarning, f"{text}.py", 1))


def test_control_characters_of_a_command_line_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([COFFEE, "--\x1b[31m"], [COFFEE, "--seed", "\x1b[31m"], [COFFEE, "--fit", "\x9b31m"]):
        code, out, err = run(capsys, *words)
        assert code in (1, 2) and len(err.splitlines()) == 1 and (out + err).replace("\n", "").isprintable()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_output_that_is_not_utf8_is_readable(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with escaped_streams():
        print_predictions(make_console(), [(1, "日本", 0.55)], [])
        print("100 % █ → ≥", flush=True)
        assert stream.errors != "strict"
    assert stream.errors == "strict"
    text = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "#############" in text and "100 % # -> >=" in text and "\\u65e5\\u672c" in text
    assert "\\u25" not in text


@pytest.mark.parametrize("columns", ["20", "1", "0", "abc", "²", "-5", "", "9" * 30])
def test_layer_names_are_not_truncated(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    name = "blocks.5.0.inner.conv_pointwise_linear.normalization"
    with screen(monkeypatch) as terminal:
        console = make_console()
        print_layers(console, [LayerRow(name, "112x112", 0.25, ("no positive evidence",))], "minibus", "gradcam")
        print_predictions(console, [(100, "minibus " * 5, 0.25)], [])
        text = STYLE.sub("", terminal.text)
    assert name in text and "112x112" in text and "25%" in text and "25.0%" in text and "…" not in text


def test_other_libraries_see_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """They print progress bars and colors to a terminal."""
    with screen(monkeypatch) as terminal:
        assert not sys.stdout.isatty() and not sys.stderr.isatty()
        assert make_console().is_terminal and make_console(stderr=True).is_terminal
        print("10 %\r20 %", file=sys.stderr)
        assert terminal.text == "10 %\n20 %\n"


@pytest.mark.parametrize(
    "words", [["methods"], ["methods", "--json"], ["models", "resnet18"], ["--help"], ["--version"]]
)
def test_stdout_on_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as end:
            cli.main(words)
    err = capsys.readouterr().err
    assert (
        end.value.code == 2 and len(err.splitlines()) == 1 and "standard output cannot be written (no space left" in err
    )


def test_closed_streams(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Python sets a stream to None where a shell has closed it: `>&-`."""
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as end:
        cli.main(["methods", "gradcam"])
    assert end.value.code == 2 and "standard output cannot be written (it is closed)" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as end:
        cli.main([COFFEE, "--top", "0"])
    assert end.value.code == 2


def test_closed_stdin_is_an_image_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    code, _, err = run(capsys, "-")
    assert code == 1 and "standard input is closed" in err and not Path("cam").exists()


@pytest.mark.parametrize("words", [["methods"], ["models"]])
def test_a_reader_that_ends_early_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """As in `seewhy methods | head -1`: no message, and the exit code of other programs, 128 + SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as end:
            cli.main(words)
    assert end.value.code == 141 and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "a/\x1bb"), "seewhy: a/\\x1bb: permission denied."),
        (OSError(28, "No space left on device", "a", None, "b"), "seewhy: a -> b: no space left on device."),
        (OSError("odd"), "seewhy: odd."),
        (MemoryError("3 GB"), "seewhy: not enough memory (3 GB)."),
        (RecursionError("too deep"), "seewhy: a value is nested too deeply"),
    ],
)
def test_errors_of_the_system_are_one_line(capsys: pytest.CaptureFixture[str], error: Exception, message: str) -> None:
    def fail() -> None:
        raise error

    assert run_command(fail) == 2
    err = capsys.readouterr().err
    assert err.startswith(message) and len(err.splitlines()) == 1


def test_a_dash_as_a_value_is_not_a_placeholder(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, COFFEE, "--layers", "-")
    assert code == 2 and "no layer '-'" in err


def test_trailing_backslashes_do_not_hide_a_tag() -> None:
    for count in range(5):
        console = SafeConsole()
        text = console.render_str(f"[bold]{plain('a' + chr(92) * count)}[/] b")
        assert text.plain == f"a{chr(92) * count} b"


def test_an_error_of_stderr_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise UsageError("no")

    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        with escaped_streams():
            assert run_command(fail) == 2
