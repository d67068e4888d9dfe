"""What a server is told: one frozen record, read from the command line."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

from plimsoll.core.errors import UserError
from plimsoll.core.find import explain
from plimsoll.core.record import Record


class Settings(Record):
    """How to serve one run. Every limit is checked before memory is taken for what it limits."""

    run: Path
    """A run folder, or an artifact folder."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes any that is free."""
    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Where the protocol is spoken over gRPC as well; None speaks it nowhere."""
    name: str = ""
    """The model's name in the protocol; empty: that of the run folder."""
    threads: PositiveInt | None = None
    """Threads to compute with, all lanes together; None: as many as this process may run on."""

    deadline_ms: PositiveFloat = 1000.0
    """Of a request that brings none of its own."""
    queue_rows: PositiveInt = 2048
    """Rows that may wait; what comes when there is no room is refused."""
    rows: PositiveInt = 1024
    """Most texts in a request."""
    characters: PositiveInt = 20_000
    """Most characters in a text."""
    body_bytes: PositiveInt = 1 << 20
    """Largest body of a request."""
    bodies_bytes: PositiveInt = 64 << 20
    """Largest sum of the bodies that are being received or answered."""
    header_bytes: PositiveInt = 16 << 10
    """Largest request line and headers."""
    connections: PositiveInt = 1024
    header_s: PositiveFloat = 10.0
    """Seconds from the first byte of a request to the end of its headers."""
    body_s: PositiveFloat = 30.0
    """Seconds from there to the end of its body, and for a client to take an answer."""
    idle_s: PositiveFloat = 75.0
    """Seconds that a connection may do nothing."""

    keys: Path | None = None
    """File of API keys, hashed: `plimsoll.serve.keys`."""
    certificate: Path | None = None
    private_key: Path | None = None
    insecure: bool = False
    """Listen beyond this machine with neither keys nor TLS."""

    spans: bool = False
    """Write OpenTelemetry spans, to where OpenTelemetry's environment variables say."""
    watch: bool = False
    """Take up a new artifact when the run folder gets one; a SIGHUP does it at once, watching or not."""
    agreement: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Least share of the recently asked texts that a new version must answer as the outgoing one did."""
    measure_s: PositiveFloat = 3.0
    """Most seconds to spend on the cost table."""
    stuck_s: PositiveFloat = 5.0
    """Seconds without an answer, beyond what was predicted, after which a worker is killed and started again."""
    drain_s: PositiveFloat = 30.0
    """Most seconds to wait for requests in flight when a version is replaced or the server ends."""

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """Return settings from the command line. Raises UserError for a value that is none."""
        try:
            return cls(**given)
        except ValidationError as e:
            raise UserError(explain(e, "serve", lambda loc: set(cls.model_fields)), "plimsoll serve --help") from None

    def check(self) -> None:
        """Raise UserError where the settings contradict each other, or would lay the service open to anybody."""
        if (self.certificate is None) != (self.private_key is None):
            raise UserError("TLS needs a certificate and its private key",
                            "give both --certificate and --private-key, or neither")
        if not (self.keys or self.certificate or self.insecure or loopback(self.host)):
            raise UserError(f"{self.host} can be reached from elsewhere, and anybody could ask",
                            "give --keys or --certificate and --private-key; or --insecure where a proxy in front "
                            "sees to it; or leave out --host to be reached from this machine alone")


def loopback(host: str) -> bool:
    """Return whether only this machine reaches an address; a name other than localhost may mean anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
