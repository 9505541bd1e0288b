import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from asyncjobs.model.job import JobStatus
from asyncjobs.store import JobFilter
from builders import (
    EVERY_JOB,
    FAILED,
    HOUR,
    MINUTE,
    NOON,
    SUCCEEDED,
    claim_all,
    claim_one,
    ended_job,
    insert,
    make_job,
)

MICROSECOND = timedelta(microseconds=1)


async def listed(store, wanted=EVERY_JOB, *, limit=100):
    return await store.page(wanted, limit=limit, before=None)


async def paged(store, wanted=EVERY_JOB, *, limit):
    """Return the ids of all pages."""
    found, before = [], None
    while page := await store.page(wanted, limit=limit, before=before):
        found += [job.id for job in page]
        before = page[-1].id
    return found


async def matching(store, params):
    return [job.params["value"] for job in reversed(await listed(store, JobFilter(params=params)))]


async def insert_values(store, *texts):
    await insert(store, *(make_job(params_json=f'{{"value": {text}}}') for text in texts))


async def test_jobs_are_listed_newest_first(store):
    jobs = [make_job(created_at=NOON + hours * HOUR) for hours in (2, 0, 3, 1)]
    await insert(store, *jobs)

    found = await listed(store)

    assert found == [jobs[2], jobs[0], jobs[3], jobs[1]]


async def test_a_list_is_of_every_status_and_name(store):
    await ended_job(store)
    await claim_one(store, inserted=make_job())
    await insert(store, make_job(name="convert"))

    assert [job.status for job in await listed(store)] == ["PENDING", "RUNNING", "SUCCEEDED"]


async def test_a_listed_job_has_no_attempts(store):
    await ended_job(store)

    [job] = await listed(store)

    assert job.attempts == ()


@pytest.mark.parametrize("limit", [1, 2, 9, 10, 11, 1000])
async def test_pages_of_any_size_skip_and_repeat_nothing_within_one_instant(store, limit):
    """D23"""
    jobs = [make_job() for _ in range(30)]
    await insert(store, *jobs)

    assert await paged(store, limit=limit) == [job.id for job in reversed(jobs)]


@pytest.mark.parametrize("statuses", [[JobStatus.PENDING], list(JobStatus)], ids=["one status", "several"])
async def test_pages_skip_nothing_while_jobs_leave_the_filter_between_them(store, statuses):
    """D23"""
    jobs = [make_job(priority=number) for number in range(30)]
    await insert(store, *jobs)
    wanted = JobFilter(statuses=statuses)
    first = await store.page(wanted, limit=10, before=None)
    await claim_all(store, limit=10)

    second = await store.page(wanted, limit=10, before=first[-1].id)
    third = await store.page(wanted, limit=10, before=second[-1].id)

    assert [job.id for job in [*first, *second, *third]] == [job.id for job in reversed(jobs)]


async def test_pages_repeat_nothing_while_newer_jobs_arrive(store):
    """D23"""
    jobs = [make_job() for _ in range(4)]
    await insert(store, *jobs)
    first = await listed(store, limit=2)
    await insert(store, make_job(created_at=NOON + HOUR))

    second = await store.page(EVERY_JOB, limit=10, before=first[-1].id)

    assert [job.id for job in [*first, *second]] == [job.id for job in reversed(jobs)]


async def test_pages_of_several_statuses_are_one_order(store):
    """D23"""
    ended = [await ended_job(store) for _ in range(5)]
    waiting = [make_job() for _ in range(5)]
    await insert(store, *waiting)
    wanted = JobFilter(statuses=[JobStatus.SUCCEEDED, JobStatus.PENDING])

    assert await paged(store, wanted, limit=3) == [job.id for job in [*reversed(waiting), *reversed(ended)]]


async def test_pages_of_a_filter_on_params_are_full(store):
    await insert_values(store, *(["1", "2", "3"] * 10))

    page = await listed(store, JobFilter(params={"value": 2}), limit=7)

    assert len(page) == 7


async def test_a_cursor_of_a_job_that_was_deleted_still_works(store):
    older, newer = [await ended_job(store) for _ in range(2)]
    await store.delete(JobFilter(created_after=NOON), limit=100)
    await insert(store, older)

    assert [job.id for job in await store.page(EVERY_JOB, limit=10, before=newer.id)] == [older.id]


@pytest.mark.parametrize("status", list(JobStatus))
async def test_a_list_of_one_status_has_no_other(store, status):
    await ended_job(store, SUCCEEDED)
    await ended_job(store, FAILED)
    await claim_one(store, inserted=make_job())
    await insert(store, make_job())
    everything = await listed(store)

    found = await listed(store, JobFilter(statuses=[status]))

    assert found == [job for job in everything if job.status is status]


async def test_a_status_given_twice_counts_once(store):
    await insert(store, make_job())

    assert len(await listed(store, JobFilter(statuses=[JobStatus.PENDING, JobStatus.PENDING]))) == 1


async def test_a_list_of_names_has_these_names_only(store):
    jobs = [make_job(name=name) for name in ("a", "b", "c", "A", "a ")]
    await insert(store, *jobs)

    found = await listed(store, JobFilter(names=["a", "c", "unknown"]))

    assert [job.name for job in found] == ["c", "a"]


@pytest.mark.parametrize("wanted", [JobFilter(statuses=[]), JobFilter(names=())], ids=["statuses", "names"])
async def test_an_empty_collection_matches_nothing(store, wanted):
    """D24"""
    await insert(store, make_job())

    assert await listed(store, wanted) == []


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        pytest.param({"created_after": NOON}, 1, id="after is inclusive"),
        pytest.param({"created_after": NOON + MICROSECOND}, 0, id="after a microsecond later"),
        pytest.param({"created_before": NOON}, 0, id="before is exclusive"),
        pytest.param({"created_before": NOON + MICROSECOND}, 1, id="before a microsecond later"),
        pytest.param({"created_after": NOON, "created_before": NOON + MICROSECOND}, 1, id="both"),
        pytest.param({"created_after": datetime(1, 1, 1, tzinfo=UTC)}, 1, id="after the year 1"),
        pytest.param({"created_before": datetime(9999, 1, 1, tzinfo=UTC)}, 1, id="before the year 9999"),
    ],
)
async def test_the_time_of_creation_has_exact_bounds(store, bounds, found):
    await insert(store, make_job(created_at=NOON))

    assert len(await listed(store, JobFilter(**bounds))) == found


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        pytest.param({"finished_after": NOON + MINUTE}, 1, id="after is inclusive"),
        pytest.param({"finished_after": NOON + MINUTE + MICROSECOND}, 0, id="after a microsecond later"),
        pytest.param({"finished_before": NOON + MINUTE}, 0, id="before is exclusive"),
        pytest.param({"finished_before": NOON + MINUTE + MICROSECOND}, 1, id="before a microsecond later"),
    ],
)
async def test_the_time_of_the_end_has_exact_bounds(store, bounds, found):
    await ended_job(store, now=NOON + MINUTE)
    await insert(store, make_job())

    assert len(await listed(store, JobFilter(**bounds))) == found


async def test_a_bound_of_another_time_zone_is_the_same_instant(store):
    await insert(store, make_job(created_at=NOON))
    elsewhere = NOON.astimezone(timezone(timedelta(hours=-11)))

    assert len(await listed(store, JobFilter(created_after=elsewhere))) == 1


async def test_filters_are_combined(store):
    await insert(store, make_job(name="a"), make_job(name="b"))
    await ended_job(store, name="c")

    found = await listed(store, JobFilter(names=["a", "c"], statuses=[JobStatus.PENDING], created_after=NOON))

    assert [job.name for job in found] == ["a"]


# --- params -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 1.0, True, "1", None, 0, False, -0.0, 0.0, ""], ids=repr)
async def test_params_are_compared_exactly(store, value):
    await insert_values(store, "1", "1.0", "true", '"1"', "null", "0", "false", "-0.0", "0.0", '""')

    assert [repr(each) for each in await matching(store, {"value": value})] == [repr(value)]


@pytest.mark.parametrize("value", [2**53, 2**53 + 1, 2**64, 10**300, -(10**300)], ids=lambda value: f"{value:.3g}")
async def test_big_integers_in_params_are_compared_exactly(store, value):
    """F52"""
    await insert_values(store, str(value - 1), str(value), str(value + 1), f"{float(value)!r}")

    assert [each for each in await matching(store, {"value": value}) if type(each) is int] == [value]


async def test_params_are_compared_with_rows_of_nan_present(store):
    """F52"""
    await insert_values(store, "NaN", "1", "Infinity")

    assert await matching(store, {"value": 1}) == [1]


async def test_nan_and_infinity_in_params_can_be_searched_for(store):
    """F52"""
    await insert_values(store, "NaN", "1", "Infinity")

    assert [repr(each) for each in await matching(store, {"value": float("nan")})] == ["nan"]
    assert await matching(store, {"value": float("inf")}) == [float("inf")]


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "100%", "_", "'\"\\", "\U0001f600"], ids=ascii)
async def test_unusual_texts_in_params_can_be_searched_for(store, value):
    """F52"""
    await insert_values(store, json.dumps(value), '"other"', "NaN")

    assert await matching(store, {"value": value}) == [value]


@pytest.mark.parametrize("wanted", [{"b": [1, {"d": 2, "c": 1}], "a": None}, {"a": None, "b": [1, {"c": 1, "d": 2}]}])
async def test_the_order_within_dictionaries_does_not_matter(store, wanted):
    await insert_values(store, '{"a": null, "b": [1, {"c": 1, "d": 2}]}', '{"a": null, "b": [{"c": 1, "d": 2}, 1]}')

    assert await matching(store, {"value": wanted}) == [wanted]


async def test_a_number_in_a_nested_value_is_compared_exactly(store):
    await insert_values(store, '{"a": 1}', '{"a": 1.0}', '{"a": true}')

    [found] = await matching(store, {"value": {"a": 1}})

    assert type(found["a"]) is int


async def test_a_text_that_looks_like_another_pair_does_not_match(store):
    await insert_values(store, json.dumps('"size": 1'), '{"size": 1}')

    assert await listed(store, JobFilter(params={"size": 1})) == []


async def test_all_params_of_a_filter_must_match(store):
    await insert(store, make_job(params_json='{"a": 1, "b": 2}'), make_job(params_json='{"a": 1, "b": 3}'))

    [found] = await listed(store, JobFilter(params={"b": 2, "a": 1}))

    assert found.params == {"a": 1, "b": 2}


async def test_a_missing_parameter_is_not_null(store):
    await insert(store, make_job(params_json="{}"))

    assert await listed(store, JobFilter(params={"value": None})) == []


async def test_an_empty_filter_on_params_matches_everything(store):
    await insert(store, make_job(params_json="{}"), make_job())

    assert len(await listed(store, JobFilter(params={}))) == 2
