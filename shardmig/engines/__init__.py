"""Where shards execute. An engine is handed a function bytes -> bytes and knows nothing of what it does."""
