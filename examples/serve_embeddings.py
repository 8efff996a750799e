"""A server of embeddings over HTTP, which computes concurrent requests in one batch.

    pip install "rd-lightning[serve]"
    rd-fit out=fit
    HEAD=fit/head uvicorn --app-dir examples serve_embeddings:app
    curl localhost:8000/embed --json '{"sequences": ["MKTAYIAKQR"], "level": "200K"}'

What comes while a batch is computed is the next batch. It is computed once, up to the largest level
that any of it asks for; each answer is a prefix of those columns. One process has one model: start
one a GPU, behind a proxy.
"""

import asyncio
import os
from typing import Annotated

import torch
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from rd_lightning import RDModel
from rd_lightning.data.fasta import clean
from rd_lightning.errors import InputError
from rd_lightning.head.head import reach

MOST = 256  # sequences of a request, and about as many of a batch
app = FastAPI(title="Nested embeddings of proteins")
model = RDModel.from_pretrained(os.environ["HEAD"])
model.to("cuda" if torch.cuda.is_available() else "cpu")
waiting, computing = [], asyncio.Lock()


class Asked(BaseModel):
    sequences: list[Annotated[str, Field(max_length=10_000)]] = Field(min_length=1, max_length=MOST)
    level: str | None = None
    width: int | None = None


@app.get("/levels")
async def levels() -> dict[str, int]:
    """Width by level."""
    return dict(zip(model.names, model.dims, strict=True))


@app.post("/embed")
async def embed(asked: Asked) -> dict:
    """Means over residues, a row a sequence: a level, the first ``width`` columns, or all."""
    for number, sequence in enumerate(asked.sequences):
        if problem := clean(sequence).problem:
            raise HTTPException(422, f"sequence {number}: {problem}")
    try:
        _, columns = reach(model.head, asked.level, asked.width)
    except InputError as error:
        raise HTTPException(422, str(error)) from error
    done = asyncio.get_running_loop().create_future()
    waiting.append((asked.sequences, columns, done))
    async with computing:  # who comes first computes for all who wait here
        while not done.done():
            await compute_batch()
    return {"width": columns, "embeddings": (await done).tolist()}


async def compute_batch() -> None:
    """The requests that wait, in a thread, so that others are taken meanwhile."""
    batch = [waiting.pop(0)]
    while waiting and sum(len(sequences) for sequences, *_ in batch) < MOST:
        batch.append(waiting.pop(0))
    together = [sequence for sequences, *_ in batch for sequence in sequences]
    width = max(columns for _, columns, _ in batch)
    try:
        rows = await asyncio.to_thread(model.embed, together, pooling="mean", width=width)
    except Exception as error:
        for *_, done in batch:
            done.set_exception(HTTPException(500, f"{type(error).__name__}: {error}"))
        return
    parts = rows.split([len(sequences) for sequences, *_ in batch])
    for (_, columns, done), mine in zip(batch, parts, strict=True):
        done.set_result(mine[:, :columns])
