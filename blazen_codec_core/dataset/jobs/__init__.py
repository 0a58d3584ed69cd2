"""Jobs that run over shards."""
