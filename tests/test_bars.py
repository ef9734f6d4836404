import os
import pty
import re
import threading

import pytest

from pixsieve.engine.bars import Bars

SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"


class Terminal:
    """A real terminal: what is written to ``stream`` collects in ``text``."""

    def __init__(self):
        ours, theirs = pty.openpty()
        self.stream = os.fdopen(theirs, "w")
        self._ours = ours
        self._found = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        try:
            while found := os.read(self._ours, 65536):
                self._found += found
        except OSError:  # Linux says EIO when the other side is closed
            pass

    def text(self) -> str:
        self.stream.close()
        self._reader.join()
        os.close(self._ours)
        return self._found.decode()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_a_step_has_a_bar_and_then_a_line_with_its_figures(terminal):
    with Bars(terminal.stream) as bars:
        bars.start("index", 2000, "sources")
        bars.advance(1500)
        bars.advance(500)
        bars.finish({"samples": 12, "sources": 2000})
    text = terminal.text()
    assert "2,000/2,000 sources" in text
    assert "/s" in text
    assert "index: 12 samples, 2000 sources in 0.0 s" in text


def test_a_step_without_a_total_counts(terminal):
    with Bars(terminal.stream) as bars:
        bars.start("index", None, "sources")
        bars.advance(7)
        bars.finish({})
    text = terminal.text()
    assert "7 sources" in text
    assert not re.search(r"/\d", text), "there is nothing to count up to"


def test_the_cursor_comes_back_however_a_run_ends(terminal):
    def broken_run():
        with Bars(terminal.stream) as bars:
            bars.start("inspect", 10, "samples")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_run()
    text = terminal.text()
    assert text.count(HIDE_CURSOR) == 1
    assert text.rfind(SHOW_CURSOR) > text.rfind(HIDE_CURSOR)


def test_what_data_says_is_neither_markup_nor_control(terminal):
    with Bars(terminal.stream) as bars:
        bars.log("[bold]a\x1b]0;title\x07b[/bold]")
        bars.start("index", 1, "[red]\x1b[31msources")
        bars.finish({})
    text = terminal.text()
    assert r"[bold]a\x1b]0;title\x07b[/bold]" in text
    assert "\x1b]0;" not in text
