"""shardmig moves experiment history between trackers, in parallel, whole, and proves that it arrived."""

__version__ = "0.1.0"
