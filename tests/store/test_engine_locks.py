import asyncio

from builders import INTERRUPTED, NOON, claim_one, finish, insert, make_engine, make_job, opened


async def test_an_engine_that_registered_is_locked(store, other_store):
    await store.register(make_engine())

    assert await other_store.unlocked_engines() == []


async def test_an_engine_sees_its_own_lock_as_held(store):
    await store.register(make_engine())

    assert await store.unlocked_engines() == []


async def test_an_engine_that_unregistered_is_gone(store, other_store):
    await store.register(make_engine())

    await store.unregister("engine-a")

    assert await other_store.unlocked_engines() == []


async def test_unregistering_what_is_not_there_does_nothing(store):
    await store.unregister("engine-z")

    assert await store.unlocked_engines() == []


async def test_the_engines_of_one_process_have_locks_of_their_own(store, other_store):
    await store.register(make_engine("engine-a"))
    await other_store.register(make_engine("engine-b"))

    await store.unregister("engine-a")

    assert await store.unlocked_engines() == await other_store.unlocked_engines() == []


async def test_an_engine_whose_jobs_have_been_given_back_can_go(store):
    await store.register(make_engine())
    job = await claim_one(store, inserted=make_job())
    await store.unregister("engine-a")
    await finish(store, job, INTERRUPTED)

    await store.unregister("engine-a")

    assert await store.unlocked_engines() == []


async def test_another_process_that_wrote_is_noticed(store, address):
    await store.changed()
    noticed = asyncio.create_task(store.changed())

    async with opened(address) as other:
        await insert(other, make_job(run_at=NOON))

    async with asyncio.timeout(5):
        await noticed
