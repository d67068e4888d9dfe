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
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import serve as ray_serve
from starlette.responses import Response

from plimsoll.bench.machine import cores_allowed, fingerprint
from plimsoll.core.errors import ChildError, PlimsollError, UserError
from plimsoll.serve import opening, versions
from plimsoll.serve.costs import Costs, Forecast
from plimsoll.serve.keys import Key, Keys
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.ray_options import Replicas, options, threads_of, timeout_s
from plimsoll.serve.replica import Replica
from plimsoll.serve.settings import Settings
from plimsoll.serve.supervisor import SWAP_MEASURE_S, cannot_listen, named
from plimsoll.serve.versions import Version

if TYPE_CHECKING:
    from starlette.requests import Request

_log = logging.getLogger("plimsoll.serve")

_NAMESPACE = "plimsoll"
_DEPLOYMENT = "replica"
_POLL_S = 0.2
_WATCH_S = 1.0
_START_S = 300.0
"""Longest that a version may take until all replicas answer."""
