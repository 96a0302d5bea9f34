"""A day in the life of procrastinate, a job queue: run by a recording, DATABASE_URL says where."""

from __future__ import annotations

import asyncio
import logging
import os

import procrastinate
from procrastinate import PsycopgConnector, SyncPsycopgConnector

URL = os.environ["DATABASE_URL"]
app = procrastinate.App(connector=PsycopgConnector(conninfo=URL))
logging.getLogger("procrastinate").setLevel(logging.CRITICAL)  # it tells of the job that fails, with a traceback
done: list[int] = []


@app.task(queue="sums", name="add")
def add(a: int, b: int) -> None:
    done.append(a + b)


@app.task(queue="sums", name="fails", retry=1)
def fails() -> None:
    raise ValueError("as it should")


@app.periodic(cron="* * * * *")
@app.task(queue="sums", name="tick", pass_context=True)
def tick(context: object, timestamp: int) -> None:
    done.append(timestamp)


async def main() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await add.defer_async(a=1, b=2)
        await add.configure(schedule_in={"days": 1}, priority=3, lock="one at a time").defer_async(a=3, b=4)
        await add.batch_defer_async({"a": 5, "b": 6}, {"a": 7, "b": 8})
        await fails.defer_async()
        late = await add.configure(queue="later", queueing_lock="only once").defer_async(a=9, b=9)
        assert await app.job_manager.cancel_job_by_id_async(late)
        worker = asyncio.create_task(app.run_worker_async(queues=["sums"], delete_jobs="successful"))
        await asyncio.sleep(1)
        await add.defer_async(a=10, b=20)  # and the worker hears of it
        while 30 not in done:  # noqa: ASYNC110 - a task in a thread sets it
            await asyncio.sleep(0.1)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        assert {3, 11, 15, 30} <= set(done), done
        manager = app.job_manager
        assert list(await manager.list_jobs_async(queue="later"))
        assert list(await manager.list_queues_async())
        assert list(await manager.list_tasks_async())
        assert not list(await manager.list_locks_async(queue="none"))
        assert not list(await manager.get_stalled_jobs(seconds_since_heartbeat=60))
        await manager.delete_old_jobs(nb_hours=1, include_failed=True)


def synchronous() -> None:
    """As a web process defers jobs."""
    with app.replace_connector(SyncPsycopgConnector(conninfo=URL)) as web, web.open():
        web.configure_task("add", queue="sums").defer(a=1, b=1)


asyncio.run(asyncio.wait_for(main(), 40))
synchronous()
