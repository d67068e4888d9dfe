"""The actors of a deployment on Ray: replicas that answer, and the shelf of a version that they take its files from.

Files go as bytes, whether or not a replica sees the run folder: a replica that starts again gets the very version that
was verified, not what the folder holds by then. Hashes are checked where the bytes arrive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import serve as ray_serve
from starlette.requests import Request
from starlette.responses import Response

from plimsoll.serve.costs import Costs
from plimsoll.serve.keys import Key, Keys
from plimsoll.serve.replica import Replica
from plimsoll.serve.settings import Settings

NAMESPACE = "plimsoll"


class Shelf:
    """The files of one version, in memory: an actor with a name. Who deploys makes it again where it is gone."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """files: the record among them."""
        self._files = files

    def files(self) -> Mapping[str, bytes]:
        """Return them."""
        return self._files


def shelf_of(app: str, version: str) -> str:
    """Return the name of the actor that has a version's files."""
    return f"{app}-{version}"


class Answering:
    """A replica in an actor: what Ray Serve makes one of, asks for its health, and gives requests to."""

    def __init__(self, settings: str, keys: Sequence[str], costs: str, version: str) -> None:
        """Take in records as JSON. Nothing is opened before `reconfigure`, which Ray awaits on the replica's loop.

        keys: a line of the file of keys each; none asks for no key. version: what `reconfigure` is to open; with
        another one replicas are replaced.
        """
        self._settings = Settings.model_validate_json(settings)
        callers = Keys([Key.model_validate_json(line) for line in keys]) if keys else None
        self._version = version
        self._costs = Costs.model_validate_json(costs)
        self._replica = Replica(self._settings, callers, ray_serve.get_replica_context().replica_tag)

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Open the version that the deployment is of; config: nothing, but without one Ray would not call this."""
        shelf: Any = ray.get_actor(shelf_of(self._settings.name, self._version), namespace=NAMESPACE)
        await self._replica.start(self._version, await shelf.files.remote(), self._costs)

    async def __call__(self, request: Request) -> Response:
        """Answer a request. Ray cancels this when the client goes away."""
        scope = request.scope
        path = scope.get("raw_path") or request.url.path.encode()
        headers = {name.lower(): value for name, value in scope["headers"]}
        reply = await self._replica.answer(request.method, path.partition(b"?")[0].decode("latin-1"), headers,
                                           request.stream())
        response = Response(reply.body, reply.status)
        response.raw_headers = list(reply.headers)
        return response

    def check_health(self) -> None:
        """Raise when a request asked now would not be computed."""
        self._replica.check()

    def recent(self) -> list[tuple[str, Any]]:
        """Return texts that were asked of late and the answers they were given."""
        return self._replica.recent()

    async def __del__(self) -> None:
        """End the worker; Ray awaits this once the last request is answered."""
        await self._replica.close()
