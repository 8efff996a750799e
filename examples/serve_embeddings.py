"""A server of embeddings over HTTP, which computes concurrent requests in one batch.

    pip install "rd-lightning[serve]"
    rd-fit out=fit
    HEAD=fit/head uvicorn --app-dir examples serve_embeddings:app
    curl localhost:8000/embed --json '{"sequences": ["MKTAYIAKQR"], "level": "200K"}'

What comes within WAIT seconds, or while a batch is computed, is the next batch. It is computed
once, up to the largest level that any of it asks for; each answer is a prefix of those columns. One
process has one model: start one a GPU, behind a proxy.
"""

import asyncio
import contextlib
import os

import torch
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from rd_lightning import RDModel
from rd_lightning.data.fasta import clean
from rd_lightning.errors import InputError
from rd_lightning.head.head import reach

WAIT, MOST_SEQUENCES, MOST_RESIDUES = 0.01, 256, 10_000


class Asked(BaseModel):
    sequences: list[str] = Field(min_length=1, max_length=MOST_SEQUENCES)
    level: str | None = None
    width: int | None = None


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.model = RDModel.from_pretrained(os.environ["HEAD"])
    app.state.model.to("cuda" if torch.cuda.is_available() else "cpu")
    app.state.queue = asyncio.Queue()
    running = asyncio.create_task(run_batches(app.state.model, app.state.queue))
    yield
    running.cancel()


app = FastAPI(title="Nested embeddings of proteins", lifespan=lifespan)


@app.get("/levels")
async def levels() -> dict[str, int]:
    """Width by level."""
    return dict(zip(app.state.model.names, app.state.model.dims, strict=True))


@app.post("/embed")
async def embed(asked: Asked) -> dict:
    """Means over residues, a row a sequence: a level, the first ``width`` columns, or all."""
    try:
        _, columns = reach(app.state.model.head, asked.level, asked.width)
    except InputError as error:
        raise HTTPException(422, str(error)) from error
    for number, sequence in enumerate(asked.sequences):
        problem = clean(sequence).problem if len(sequence) <= MOST_RESIDUES else "too long"
        if problem:
            raise HTTPException(422, f"sequence {number}: {problem}")
    done = asyncio.get_running_loop().create_future()
    await app.state.queue.put((asked.sequences, columns, done))
    return {"width": columns, "embeddings": (await done).tolist()}


async def run_batches(model: RDModel, queue: asyncio.Queue) -> None:
    """One batch after another, in a thread, so that requests are taken meanwhile."""
    while True:
        batch = [await queue.get()]
        await asyncio.sleep(WAIT)
        while not queue.empty() and sum(len(s) for s, _, _ in batch) < MOST_SEQUENCES:
            batch.append(queue.get_nowait())
        sequences = [sequence for asked, _, _ in batch for sequence in asked]
        width = max(columns for _, columns, _ in batch)
        try:
            rows = await asyncio.to_thread(model.embed, sequences, pooling="mean", width=width)
        except Exception as error:
            rows, failed = None, HTTPException(500, f"{type(error).__name__}: {error}")
        for asked, columns, done in batch:
            if rows is not None:
                mine, rows = rows[: len(asked), :columns], rows[len(asked) :]
            if done.done():  # who asked has gone
                continue
            done.set_exception(failed) if rows is None else done.set_result(mine)
