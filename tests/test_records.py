"""What an attempt's end says of the limit that it met."""

import pytest

from asyncjobs.engine.records import with_limit
from asyncjobs.model.outcome import Crashed, Failed, ProcessReport, Succeeded
from builders import make_error

MET = ProcessReport(limit="memory limit of 1048576 bytes reached")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "memory limit of 1048576 bytes reached"),
        ("no room for 7 rows", "no room for 7 rows (memory limit of 1048576 bytes reached)"),
    ],
)
def test_an_error_at_a_limit_names_the_limit_behind_its_own_words(said, told):
    failed = Failed(error=make_error(class_name="MemoryError", message=said), transient=True)

    assert with_limit(failed, MET) == Failed(error=make_error(class_name="MemoryError", message=told), transient=True)


@pytest.mark.parametrize("outcome", [Succeeded("1"), Crashed(reason="cpu limit of 1 s reached")], ids=repr)
def test_an_end_that_is_no_error_of_the_job_stays_as_it_is(outcome):
    assert with_limit(outcome, MET) is outcome


def test_an_error_without_a_limit_stays_as_it_is():
    failed = Failed(error=make_error())

    assert with_limit(failed, ProcessReport()) is failed
