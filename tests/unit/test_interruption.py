from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from bertir.interruption import SIGNALS, Interrupted, held, interruptions

pytestmark = pytest.mark.usefixtures("signals")


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_raises_and_says_which_status_it_ends_with(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as caught, interruptions():
        signal.raise_signal(number)
    assert caught.value.exit_status == 128 + number
    assert "what was finished is in the store" in str(caught.value)


def test_an_interruption_is_no_exception_that_a_library_would_swallow() -> None:
    assert not issubclass(Interrupted, Exception)


def test_a_second_signal_does_not_end_the_clean_up(capfd: pytest.CaptureFixture[str]) -> None:
    cleaned = False
    with pytest.raises(Interrupted) as caught, interruptions():  # noqa: PT012 - the order is what is tested
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)
            cleaned = True
    assert cleaned
    assert caught.value.exit_status == 143
    assert "cleaning up; once more ends it at once" in capfd.readouterr().err


def test_nor_does_one_that_comes_after_the_clean_up_while_the_process_ends(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Interrupted), interruptions():
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    assert "cleaning up" in capfd.readouterr().err


def test_the_third_signal_ends_the_process_at_once() -> None:
    program = (
        "import signal, time; from bertir.interruption import interruptions\n"
        "with interruptions():\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    finally:\n"
        "        signal.raise_signal(signal.SIGINT); print('cleaning', flush=True)\n"
        "        signal.raise_signal(signal.SIGINT); print('never', flush=True); time.sleep(60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (130, "cleaning\n")


def test_two_of_one_kind_and_one_of_another_leave_the_clean_up_to_its_end() -> None:
    """So it is for a rebuild's process: Ctrl-C twice reaches it too, and then its parent ends it."""
    program = (
        "import signal; from bertir.interruption import interruptions\n"
        "with interruptions():\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    finally:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "        signal.raise_signal(signal.SIGTERM); print('cleaned', flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert ended.stdout == "cleaned\n"


def test_what_is_held_is_raised_at_the_end_of_the_outermost_block() -> None:
    reached = []
    with pytest.raises(Interrupted) as caught, interruptions(), held():  # noqa: PT012 - so is it here
        with held():
            signal.raise_signal(signal.SIGTERM)
            reached.append("inner")
        reached.append("outer")
    assert reached == ["inner", "outer"]
    assert caught.value.exit_status == 143


def test_holding_without_handlers_of_ours_changes_nothing() -> None:
    with pytest.raises(KeyboardInterrupt), held():
        signal.raise_signal(signal.SIGINT)


def test_an_error_in_a_held_block_gives_way_to_the_signal_that_came() -> None:
    def failing() -> None:
        with held():
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError

    with pytest.raises(Interrupted), interruptions():
        failing()


def test_without_a_signal_the_handlers_are_as_before() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with interruptions():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_what_the_process_was_started_to_ignore_stays_ignored() -> None:
    """As under nohup; and in a shell's background job, for SIGINT."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptions():
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)


def test_a_signal_that_another_thread_takes_does_not_break_into_a_held_block() -> None:
    program = (
        "import os, signal, threading, time; from bertir.interruption import Interrupted, held, interruptions\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "try:\n"
        "    with interruptions(), held():\n"
        "        print('ready', flush=True)\n"
        "        until = time.monotonic() + 0.5\n"
        "        while time.monotonic() < until: sum(range(1000))\n"
        "        print('whole', flush=True)\n"
        "except Interrupted: print('raised', flush=True); os._exit(0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        assert child.stdout.read() == "whole\nraised\n"
