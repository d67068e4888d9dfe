"""A FastAPI handler around the same artifact, as one writes it in an afternoon: uvicorn, a model per process.

    python service.py ARTIFACT PORT WORKERS
"""

import os
import sys
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from plimsoll.core import artifact

WAYS = ("1", "2")
"""Worker processes."""


@asynccontextmanager
async def opened(app):
    with artifact.load(os.environ["ARTIFACT"]) as predictor:
        app.state.predictor = predictor
        yield


app = FastAPI(lifespan=opened)


class Request(BaseModel):
    texts: list[str]


class Response(BaseModel):
    predictions: list[dict]


# a plain function: FastAPI runs it in a thread, so that a computing model does not stop the loop
@app.post("/predict")
def predict(request: Request) -> Response:
    return Response(predictions=[p.record() for p in app.state.predictor.predict(request.texts)])


if __name__ == "__main__":
    os.environ["ARTIFACT"] = sys.argv[1]
    sys.path.insert(0, os.path.dirname(__file__))
    uvicorn.run("service:app", host="127.0.0.1", port=int(sys.argv[2]), workers=int(sys.argv[3]), access_log=False,
                log_level="error")
