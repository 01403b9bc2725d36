"""The options of source `neptune3`."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from shardmig.adapters.neptune_server import ServerOptions, YesNo, parse_server_options
from shardmig.errors import UsageError


class Neptune3Options(ServerOptions, frozen=True, kw_only=True):
    """See `ServerOptions`; and

    lineage          also the points that a fork inherits: its series are whole, and stand in the parent too
    metric_previews  also points that were never committed, as fields of their own below sys/metric_previews
    timeout_s        of one request
    """

    lineage: YesNo = "no"
    metric_previews: YesNo = "no"
    timeout_s: float = 60.0

    def verify(self) -> bool | ssl.SSLContext:
        """What the HTTP client is told about certificates. Raises UsageError for authorities that cannot be read."""
        if self.verify_tls == "no" or not self.ca_file:
            return self.verify_tls == "yes"
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise UsageError(f"ca-file {self.ca_file} cannot be read: {error}") from error


def parse_options(options: Mapping[str, str]) -> Neptune3Options:
    """Options as given on the command line. Raises UsageError."""
    parsed = parse_server_options("neptune3", Neptune3Options, options)
    if not 0 < parsed.timeout_s < float("inf"):
        raise UsageError(f"timeout-s is {parsed.timeout_s}; it must be a positive number")
    return parsed
