"""`plimsoll serve --on ray`: replicas of one artifact on Ray Serve, whose proxies bring them requests and nothing more.

A replica is `plimsoll.serve.replica` in an actor. This process keeps the deployment: it verifies a version, opens it
once to see that it answers and what it costs, hands its bytes to the cluster, and lets Ray replace the replicas.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from plimsoll.bench.machine import cores_allowed, fingerprint
from plimsoll.core.artifact import Artifact
from plimsoll.core.errors import ChildError, PlimsollError, UserError
from plimsoll.serve import opening, versions
from plimsoll.serve.costs import Costs, Forecast
from plimsoll.serve.keys import shared_out
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.parity import Parity
from plimsoll.serve.ray_actors import NAMESPACE, Answering, Shelf, shelf_of
from plimsoll.serve.ray_options import Replicas, options, threads_of, timeout_s
from plimsoll.serve.settings import Settings
from plimsoll.serve.supervisor import SWAP_MEASURE_S, cannot_listen, named
from plimsoll.serve.versions import Version

_log = logging.getLogger("plimsoll.serve")

_DEPLOYMENT = "replica"
_POLL_S = 0.1
_WATCH_S = 1.0
_START_S = 300.0
"""Longest that it may take until all replicas have a version."""
_LOGGING = {"enable_access_log": False, "log_level": "WARNING"}
"""An access log has a line for each request, and says nothing that the metrics do not."""
_RECENT_S = 10.0
"""Longest that a replica may take to say what it was asked of late."""


class Stopped(Exception):
    """It was told to end while it waited for something."""


class Deployment:
    """One model on a Ray cluster. `start`, `take_up` as often as there is a new version, `stop`."""

    def __init__(self, settings: Settings, replicas: Replicas, over: threading.Event | None = None) -> None:
        """over: once it is set, what waits for Ray stops waiting and raises Stopped.

        Raises UserError for settings that Ray's proxy cannot keep.
        """
        settings.check()
        _possible(settings)
        self.settings = settings.model_copy(update={"name": settings.name or named(settings.run)})
        self.replicas = replicas
        self.version: Version | None = None
        self._over = over or threading.Event()
        self._keys = [] if settings.keys is None else shared_out(settings.keys, replicas.most)
        self._costs: dict[str, Costs] = {}
        self._threads, self._cores = 0, 0.0
        self._ours = self._deployed = False
        self._shelved: list[Version] = []
        """Whose files are on the cluster."""
        self._stack = contextlib.ExitStack()
        self._shelf = Path()
        self._machine = ""
        self._options: dict[str, Any] = {}

    @property
    def url(self) -> str:
        """Where the proxy of this machine listens."""
        host = self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.settings.port}"

    def introduction(self) -> list[str]:
        """Return what to tell who started it."""
        assert self.version is not None
        most = "" if self.replicas.least == self.replicas.most else f" to {self.replicas.most}"
        alone = self._costs[self.version.name].alone
        return [f"serving    {self.settings.name}, version {self.version.name}, at {self.url}",
                f"replicas   {self.replicas.least}{most} of {self._threads} threads each, on Ray {ray.__version__}",
                *([f"batches    of one row each: {alone}"] if alone else []),
                f"look       {self.url}/ and {self.url}/metrics"]

    def start(self) -> None:
        """Join the cluster that RAY_ADDRESS names, or start one here; return when all replicas answer."""
        try:
            self._shelf = self._stack.enter_context(versions.shelf())
            version = versions.take(self.settings.run, self._shelf)
            self._machine = fingerprint().digest
            self._join()
            self._deploy(version, asyncio.run(self._tried(version)))
        except BaseException:
            self.stop()
            raise

    def take_up(self) -> bool:
        """Replace the version by what the run folder holds now; return whether that came about.

        It is opened here and compared with what the replicas answered of late before any of them is replaced. What is
        not fit is refused, and what Ray cannot bring up is taken back: the one in service stays.
        """
        old = self.version
        assert old is not None
        try:
            if versions.offered(self.settings.run) == old.name:
                return False
            recent = self._recent()
            version = versions.take(self.settings.run, self._shelf)
            forecast, found = asyncio.run(self._compared(version, old.artifact, recent))
        except (PlimsollError, OSError) as e:
            _log.error("the new version is refused, the one in service stays: %s", e)
            return False
        before = self._options
        try:
            self._deploy(version, forecast)
        except PlimsollError as e:
            _log.error("the new version did not come up, the one before comes back: %s", e)
            try:
                self._run(old, before)
            except PlimsollError as again:
                _log.error("whether it did is not known: %s", again)
            self._forget(version)
            return False
        self._forget(old)
        _log.warning("version %s replaces %s: %d of %d recent texts answered alike", version.name, old.name,
                     found.alike, found.texts)
        return True

    def tend(self) -> None:
        """Put the version's files back on the cluster where the machine that had them is gone."""
        assert self.version is not None
        try:
            with _cluster("it does not say whether it has the files"):
                there = self._there(self.version)
            if not there:
                _log.warning("the cluster lost the files of version %s; they are sent again", self.version.name)
                self._shelve(self.version)
        except ChildError as e:  # it may be well again when it is asked the next time
            _log.error("%s", e)

    def stop(self) -> None:
        """End the deployment once its requests are answered, and the local Ray where there is one."""
        if ray.is_initialized():
            if self._deployed:
                with contextlib.suppress(Exception):  # of a cluster that is gone there is nothing to end
                    ray_serve.delete(self.settings.name)
            for version in tuple(self._shelved):
                self._forget(version)
            if self._ours:
                with contextlib.suppress(Exception):
                    ray_serve.shutdown()
            ray.shutdown()
        self._stack.close()

    # -- steps

    def _join(self) -> None:
        """Be in a cluster, with proxies that listen where they are to."""
        settings, address = self.settings, os.environ.get("RAY_ADDRESS")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unless somebody says so
        if address:
            ray.init(address=address, namespace=NAMESPACE, logging_level=logging.WARNING)
            per_node = [float(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        else:
            self.settings = settings = settings.model_copy(update={"port": _free(settings)})
            per_node = [float(max(1, int(cores_allowed())))]
            self._ours = True
            ray.init(address="local", namespace=NAMESPACE, num_cpus=int(per_node[0]), include_dashboard=False,
                     logging_level=logging.WARNING)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        self._cores = sum(per_node)
        self._threads = threads_of(self.replicas, self._cores, max(per_node, default=0.0), settings.threads)
        ray_serve.start(
            proxy_location="EveryNode",
            http_options={"host": settings.host, "port": settings.port, "request_timeout_s": timeout_s(settings),
                          "keep_alive_timeout_s": int(settings.idle_s)},
            logging_config=_LOGGING)
        if address:
            self._alone()

    def _alone(self) -> None:
        """Raise UserError where the cluster serves this name already, or serves where we were not told to.

        Who may ask was decided for the host that we were told; Ray keeps that of whoever was there first, and warns.
        """
        client = _get_global_client()
        assert client is not None  # it was started
        settings, real = self.settings, client.http_config
        if (real.host, real.port) != (settings.host, settings.port):
            raise UserError(f"this cluster's proxies listen at {real.host}:{real.port}, not at {settings.host}:"
                            f"{settings.port}", "give that --host and --port, or end what is served there (serve "
                            "shutdown)")
        if settings.name in ray_serve.status().applications:
            raise UserError(f"this cluster serves {settings.name} already", "give another --name, or end that one "
                            f"first (serve delete {settings.name})")

    async def _tried(self, version: Version) -> Forecast:
        """Open a version here, as a replica will, and close it: it answers, and its costs are known."""
        engine = await opening.opened(version, self.settings, Metrics(), self._threads, self._machine, self._costs,
                                      budget_s=self.settings.measure_s, keep=False)
        await engine.close()
        return engine.forecast

    async def _compared(self, version: Version, old: Artifact, recent: list[tuple[str, Any]]
                        ) -> tuple[Forecast, Parity]:
        engine, alike = await opening.successor(
            version, old, recent, self.settings, Metrics(), self._threads, self._machine, self._costs,
            budget_s=min(SWAP_MEASURE_S, self.settings.measure_s))
        await engine.close()
        return engine.forecast, alike

    def _recent(self) -> list[tuple[str, Any]]:
        """Return what one of the replicas was asked of late: texts come to all alike."""
        with _cluster("no replica says what it was asked of late"):
            handle: Any = ray_serve.get_deployment_handle(_DEPLOYMENT, self.settings.name)
            return handle.recent.remote().result(timeout_s=_RECENT_S)

    def _deploy(self, version: Version, forecast: Forecast) -> None:
        self._shelve(version)
        self._run(version, options(self.settings, self.replicas, self._threads, self._cores, forecast))

    def _shelve(self, version: Version) -> None:
        """Put the files of a version where replicas find them. The actor outlives this process, as the replicas do."""
        made: Any = ray.remote(Shelf)
        if version not in self._shelved:
            self._shelved.append(version)
        with _cluster("it does not take the files"):
            shelf = made.options(name=shelf_of(self.settings.name, version.name), namespace=NAMESPACE,
                                 lifetime="detached", num_cpus=0, get_if_exists=True).remote(versions.pack(version))
            ray.get(shelf.__ray_ready__.remote())

    def _there(self, version: Version) -> bool:
        try:
            ray.get_actor(shelf_of(self.settings.name, version.name), namespace=NAMESPACE)
        except ValueError:  # its way to say no
            return False
        return True

    def _run(self, version: Version, told: dict[str, Any]) -> None:
        """Have Ray replace the replicas, and wait until all are of this version. Raises ChildError when it cannot."""
        name, settings = self.settings.name, self.settings.model_copy(update={"threads": self._threads})
        made: Any = ray_serve.deployment(Answering, name=_DEPLOYMENT, user_config={}, logging_config=_LOGGING,
                                         **told)
        app = made.bind(settings.to_json(), self._keys, self._costs[version.name].to_json(), version.name)
        self._deployed = True
        with _cluster("it does not take the deployment"):
            ray_serve.run_many([ray_serve.RunTarget(app, name=name, route_prefix="/")],
                               wait_for_ingress_deployment_creation=True, wait_for_applications_running=False)
        end = time.monotonic() + _START_S
        while True:
            with _cluster("it does not say what became of the deployment"):
                found = ray_serve.status().applications[name]
            if found.status == "RUNNING":
                break
            if found.status in ("DEPLOY_FAILED", "UNHEALTHY") or time.monotonic() > end:
                raise ChildError(f"Ray could not bring version {version.name} up: {found.message[-500:]}",
                                 "look at what the replicas printed")
            if self._over.wait(_POLL_S):
                raise Stopped
        self.version, self._options = version, told

    def _forget(self, version: Version) -> None:
        with contextlib.suppress(ValueError, RayError):  # it is gone already, or the cluster is
            ray.kill(ray.get_actor(shelf_of(self.settings.name, version.name), namespace=NAMESPACE))
        if version in self._shelved:
            self._shelved.remove(version)
        version.remove()


@contextlib.contextmanager
def _cluster(says: str) -> Iterator[None]:
    """Raise ChildError for what goes wrong with the cluster: it ends a step, and not what is in service."""
    try:
        yield
    except (RayError, RayServeException, ConnectionError, TimeoutError, KeyError) as e:
        raise ChildError(f"the cluster: {says}: {type(e).__name__}: {str(e)[-300:]}", "look at it, and send the signal "
                         "again") from None


def serve(settings: Settings, replicas: Replicas, ready: Callable[[Deployment], None]) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP takes up a new version. `ready` is called once, when all replicas answer.

    Returns the exit code: 0 after an orderly end.
    """
    over, again = threading.Event(), threading.Event()
    deployment = Deployment(settings, replicas, over)
    handlers = {signal.SIGTERM: over.set, signal.SIGINT: over.set, signal.SIGHUP: again.set}

    def listen() -> None:
        for number, act in handlers.items():
            signal.signal(number, lambda *_, act=act: act())

    listen()
    seen = versions.stamp(settings.run)
    try:
        deployment.start()
        listen()  # Ray puts a handler of its own in place when it starts
        ready(deployment)
        while not over.wait(_WATCH_S):
            deployment.tend()
            stamp = versions.stamp(settings.run) if settings.watch else seen
            if again.is_set() or (stamp is not None and stamp != seen):
                again.clear()
                seen = stamp
                deployment.take_up()
    except Stopped:
        return 0
    finally:
        deployment.stop()
    return 0


def _possible(settings: Settings) -> None:
    """Raise UserError for what Ray's proxy does not offer."""
    if settings.certificate is not None:
        raise UserError("on Ray a proxy of Ray's listens on every machine, and the certificate's key is not sent there",
                        "put a TLS proxy in front, and give --insecure or --keys")
    if settings.grpc_port is not None:
        raise UserError("on Ray the protocol is spoken over HTTP only", "leave out --grpc-port, or --on ray")


def _free(settings: Settings) -> int:
    """Return the port to listen at here. Raises UserError where somebody else does."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as e:
            raise cannot_listen(settings, e) from None
        return probe.getsockname()[1]
