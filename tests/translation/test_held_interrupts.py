import signal
import threading

import pytest

from geotranslate.translation.held_interrupts import held_interrupts, holding


def test_ctrl_c_comes_after_the_body_and_not_into_it():
    done = []

    def work():
        with held_interrupts():
            signal.raise_signal(signal.SIGINT)
            done.append("body")
        done.append("behind")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["body"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_held_twice_it_comes_after_the_outer_body():
    done = []

    def work():
        with held_interrupts():
            with held_interrupts():
                signal.raise_signal(signal.SIGINT)
            done.append("outer")
        done.append("behind")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["outer"]


def test_whoever_listens_to_sigterm_hears_it_after_the_body():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with held_interrupts():
            signal.raise_signal(signal.SIGTERM)
            assert not heard
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_without_a_listener_and_those_ignored_are_left_as_they_are():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_interrupts():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_in_the_body_comes_out_and_the_listener_is_back():
    def work():
        with held_interrupts():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("of the body")

    with pytest.raises(ValueError, match="of the body"):
        work()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_has_no_signals_to_hold():
    done = []

    def work():
        with held_interrupts():
            done.append("body")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["body"]


def test_whether_something_is_under_way_is_known_to_all_threads():
    heard = []

    def ask():
        thread = threading.Thread(target=lambda: heard.append(holding()))
        thread.start()
        thread.join()

    def fail():
        with held_interrupts():
            raise ValueError("went wrong")

    ask()
    with held_interrupts():
        with held_interrupts():
            ask()
        ask()
    ask()
    with pytest.raises(ValueError, match="went wrong"):
        fail()
    ask()
    assert heard == [False, True, True, False, False]


def test_an_interrupt_while_listeners_are_exchanged_leaves_nothing_under_way(monkeypatch):
    def interrupted(*args):
        monkeypatch.undo()
        raise KeyboardInterrupt

    def work():
        with held_interrupts():
            pytest.fail("this is not reached")

    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert not holding()
    with held_interrupts():
        assert holding()
