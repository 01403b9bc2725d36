"""The suites that every adapter passes by one subclass each, written as pytest classes.

    class TestMySource(SourceSuite):
        def open_source(self, folder): ...

    class TestMyTarget(TargetSuite):
        def open_target(self, folder, load): ...

Nothing else in shardmig imports this package; it needs pytest.
"""

from shardmig.adapters.conformance.runs import fact_fields, field_digests, last_point_ms, plain_run, rich_run, wide_run
from shardmig.adapters.conformance.source import SourceSuite
from shardmig.adapters.conformance.target import TargetSuite

__all__ = [
    "SourceSuite",
    "TargetSuite",
    "fact_fields",
    "field_digests",
    "last_point_ms",
    "plain_run",
    "rich_run",
    "wide_run",
]
