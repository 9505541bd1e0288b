"""A web app whose order and its job commit together: never one without the other.

    uv run uvicorn --app-dir examples fastapi_orders:app
    curl -X POST 'localhost:8000/orders?what=tea&count=2'    # {"order": 1, "job": "…"}
    curl -X POST 'localhost:8000/orders?what=tea&count=2000' # refused after the job was submitted: no order, no job
    curl localhost:8000/orders/1                             # with its receipt, once the job has run

It keeps both in a SQLite file; with ORDERS_URL=postgresql+asyncpg://… in a PostgreSQL database, where any
number of such servers may run.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from asyncjobs import JobEngine, JobStatus, job

FOLDER = Path(os.environ.get("EXAMPLE_FOLDER", "fastapi-files"))
FOLDER.mkdir(exist_ok=True)
URL = os.environ.get("ORDERS_URL", f"sqlite+aiosqlite:///{FOLDER.absolute()}/orders.db")
IN_STOCK = 100


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]
    count: Mapped[int]


class Receipt(Base):
    __tablename__ = "receipts"

    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    job_id: Mapped[str]


@job(max_workers=2, timeout=30)
def write_receipt(order: int, what: str, count: int) -> str:
    return f"Receipt for order {order}: {count} x {what}"


database = create_async_engine(URL)
sessions = async_sessionmaker(database, expire_on_commit=False)
engine = JobEngine(database, jobs=[write_receipt])  # the same database, by connections of its own


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with database.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with engine:
        yield
    await database.dispose()


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=202)
async def place(what: str, count: int) -> dict[str, Any]:
    async with sessions.begin() as session:
        order = Order(what=what, count=count)
        session.add(order)
        await session.flush()
        receipt = await engine.within(session).submit(write_receipt, order.id, what, count)
        session.add(Receipt(order_id=order.id, job_id=receipt.id))
        if count > IN_STOCK:
            raise HTTPException(409, f"only {IN_STOCK} in stock")  # rolls back: no order, no job
    return {"order": order.id, "job": receipt.id}


@app.get("/orders")
async def placed() -> dict[str, Any]:
    async with sessions() as session:
        orders = (await session.scalars(select(Order))).all()
    return {"orders": len(orders), "jobs": len((await engine.list(name="write_receipt")).jobs)}


@app.get("/orders/{order_id}")
async def status(order_id: int) -> dict[str, Any]:
    async with sessions() as session:
        receipt = await session.get(Receipt, order_id)
    if receipt is None:
        raise HTTPException(404, f"there is no order {order_id}")
    record = await engine.get(receipt.job_id)
    return {"status": record.status, "receipt": record.result if record.status is JobStatus.SUCCEEDED else None}
