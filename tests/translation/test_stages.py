import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from geotranslate.translation.stages import stage


class Recorder:
    """Doubles numbers, and knows in which thread and how it was left."""

    def __init__(self):
        self.threads, self.left, self.made = set(), [], []

    @contextmanager
    def __call__(self, fail_at=None):
        self.threads.add(threading.get_ident())

        def double(number):
            self.threads.add(threading.get_ident())
            self.made.append(number)
            if number == fail_at:
                raise ValueError(number)
            return 2 * number

        try:
            yield double
        except BaseException as error:
            self.left.append(type(error))
            raise
        else:
            self.left.append(None)
        finally:
            self.threads.add(threading.get_ident())


def test_results_come_in_order_from_one_thread_that_is_not_the_callers():
    recorder = Recorder()
    assert list(stage(recorder(), range(20), depth=3)) == list(range(0, 40, 2))
    assert recorder.left == [None]
    assert len(recorder.threads) == 1
    assert threading.get_ident() not in recorder.threads


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_no_more_than_the_depth_is_asked_for_ahead(depth):
    asked = []

    def items():
        for number in range(50):
            asked.append(number)
            yield number

    for done, _ in enumerate(stage(Recorder()(), items(), depth=depth)):
        assert len(asked) <= done + depth + 1


def test_an_error_comes_where_its_result_would_and_the_rest_is_dropped():
    recorder = Recorder()
    steps = stage(recorder(fail_at=3), range(1000), depth=2)
    assert [next(steps) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(ValueError, match="3"):
        next(steps)
    assert recorder.left == [ValueError]
    assert len(recorder.made) < 8


def test_an_error_of_the_items_leaves_the_context_as_by_an_error():
    def items():
        yield 1
        raise KeyError("gone")

    recorder = Recorder()
    with pytest.raises(KeyError):
        list(stage(recorder(), items(), depth=4))
    assert recorder.left == [KeyError]


def test_closed_early_it_leaves_the_context_as_by_an_error_and_no_thread():
    recorder, threads = Recorder(), threading.active_count()
    steps = stage(recorder(), range(1000), depth=2)
    next(steps)
    steps.close()
    assert recorder.left == [GeneratorExit]
    assert threading.active_count() == threads


@pytest.mark.parametrize("attempt", range(5))
def test_interrupted_while_the_context_is_entered_it_is_left_all_the_same(attempt):
    """Ctrl-C, while a scene takes its time to open."""
    begun, sent, left = threading.Event(), threading.Event(), []

    @contextmanager
    def slow():
        begun.set()
        sent.wait()
        time.sleep(0.05 * attempt)
        try:
            yield str
        except KeyboardInterrupt as error:
            left.append(type(error))
            raise

    def interrupt():
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)
        sent.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            list(stage(slow(), range(3), depth=1))
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert left == [KeyboardInterrupt]


def test_a_context_that_cannot_be_entered_is_not_left():
    class Closed:
        def __enter__(self):
            raise OSError("gone")

        def __exit__(self, *error):
            raise AssertionError

    with pytest.raises(OSError, match="gone"):
        list(stage(Closed(), range(3), depth=1))
