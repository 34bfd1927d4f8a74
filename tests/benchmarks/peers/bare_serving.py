"""A Starlette route that hands a request to the platform's own worker, and does nothing else.

``python -m tests.benchmarks.peers.bare_serving VERSION PORT``, where VERSION is a file with the
version as a worker takes it.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from truststram_lab.schemas.tables import Signature
from truststram_lab.server.serving.interface import Question, ServedVersion
from truststram_lab.server.serving.local import LocalBackend
from truststram_lab.server.stores.ids import new_id


def main() -> None:
    described = json.loads(Path(sys.argv[1]).read_text())
    version = ServedVersion(
        id="ver_bare",
        label="bare:1",
        weights=Path(described["weights"]),
        weights_sha256=described["sha256"],
        architecture=None,
        signature=Signature.model_validate(described["signature"]),
        statistics=None,
        runtime=described["runtime"],
    )
    backend = LocalBackend()  # as many workers as the platform may start
    backend.apply(version)

    async def predict(request: Request) -> Response:
        question = Question(await request.body(), new_id("pred"), time.monotonic())
        answer = await asyncio.wrap_future(backend.predict(version, question))
        return Response(answer.body, answer.status, media_type="application/json")

    app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
