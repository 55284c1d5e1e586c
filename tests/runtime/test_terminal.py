"""What commands print: tables whose numbers stay whole, steps with their seconds, and no colour codes where they are not wanted."""

import io
import re
import sys

import pytest

from clipstep.runtime.command_line.terminal import ConsoleProgress, new_console, new_table, print_table
from clipstep.runtime.errors import error_summary

COLOUR = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3[0-7]|9[0-7])(?:;[\d;]*)?m")


class Terminal(io.StringIO):
    """A stream that says that it is a terminal, as colours and status lines depend on it."""

    def isatty(self) -> bool:
        return True


def standing_in(monkeypatch: pytest.MonkeyPatch, columns: int = 40) -> Terminal:
    """Makes standard output a terminal of that width."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return stream


@pytest.mark.parametrize("columns", [20, 30, 40, 80])
def test_numbers_and_words_stay_whole_in_a_narrow_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = standing_in(monkeypatch, columns)
    table = new_table("what runs", "p50\nms", "error")
    table.add_row("step-float32.mlpackage, spinning threads", "12345.67", "4.3e-06")
    print_table(new_console(), table)
    words = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()).split()
    assert {"step-float32.mlpackage,", "spinning", "threads", "12345.67", "4.3e-06", "p50", "error"} <= set(words)
    assert "…" not in terminal.getvalue()


def test_a_table_that_fits_takes_no_more_lines_than_rows(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table("artifact", "largest\nerror")
    table.add_row("step.onnx", "4.3e-06")
    print_table(new_console(), table)
    heading, names, line, row = capsys.readouterr().out.splitlines()
    assert (heading.split(), names.split(), row.split()) == (["largest"], ["artifact", "error"], ["step.onnx", "4.3e-06"])
    assert set(line) == {"─"}


def test_a_terminal_gets_colours_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = standing_in(monkeypatch)
    new_console().print("16 steps in 'a.clipstep'")
    assert COLOUR.search(terminal.getvalue())
    terminal = standing_in(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    with ConsoleProgress(new_console())("verifying step.onnx"):
        new_console().print("16 steps in 'a.clipstep'")
    assert " steps in" in terminal.getvalue() and not COLOUR.search(terminal.getvalue())


def test_without_a_terminal_a_step_is_one_line_with_its_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ConsoleProgress(new_console())
    with progress("verifying step.onnx"):
        pass
    with progress("writing step.pte", reported=True):
        pass
    out = capsys.readouterr().out
    assert re.fullmatch(r"verifying step\.onnx: \d+\.\d s\n", out)


def test_on_a_terminal_a_step_is_a_status_line_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = standing_in(monkeypatch)
    with ConsoleProgress(new_console())("verifying step.onnx"):
        pass
    assert "verifying step.onnx" in terminal.getvalue()
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")  # It was erased.


def test_where_standard_output_is_for_json_no_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = standing_in(monkeypatch)
    with ConsoleProgress(new_console(quiet=True))("verifying step.onnx"):
        pass
    assert terminal.getvalue() == ""


def test_the_summary_of_an_error_has_no_codes_of_terminals() -> None:
    assert error_summary(RuntimeError("\n\x1b[96mThis is step 3/3\x1b[0m of the conversion.\nMore")) == "This is step 3/3 of the conversion."
