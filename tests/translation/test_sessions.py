import torch

from geotranslate.translation.sessions import (
    NAME,
    begin_session,
    cpu_name,
    keep_session,
    read_sessions,
)

CPU = torch.device("cpu")


def spans(run):
    return [(each.first_update, each.last_update) for each in read_sessions(run)]


def test_each_process_that_goes_on_has_an_entry_that_grows(tmp_path):
    first = begin_session(CPU, "float32", 1)
    keep_session(tmp_path, first, CPU, 10)
    keep_session(tmp_path, first, CPU, 20)
    assert spans(tmp_path) == [(1, 20)]
    keep_session(tmp_path, begin_session(CPU, "bf16", 21), CPU, 30)
    assert spans(tmp_path) == [(1, 20), (21, 30)]
    one, two = read_sessions(tmp_path)
    assert (one.precision, two.precision) == ("float32", "bf16")
    assert one.began <= two.began
    assert one.seconds >= 0
    assert one.versions["torch"] == torch.__version__


def test_a_run_that_was_cut_back_drops_what_came_after(tmp_path):
    for first, last in ((1, 20), (21, 30), (11, 12)):
        keep_session(tmp_path, begin_session(CPU, "float32", first), CPU, last)
    assert spans(tmp_path) == [(1, 10), (11, 12)]


def test_what_cannot_be_read_is_as_if_it_were_not_there(tmp_path):
    assert read_sessions(tmp_path) == []
    (tmp_path / NAME).write_text('[{"began": "yesterday"}]')
    assert read_sessions(tmp_path) == []
    keep_session(tmp_path, begin_session(CPU, "float32", 1), CPU, 5)
    assert spans(tmp_path) == [(1, 5)]


def test_the_cpu_has_a_name():
    assert cpu_name()
