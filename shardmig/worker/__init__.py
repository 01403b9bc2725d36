"""One attempt of one shard: bytes in, bytes out, never an exception."""
