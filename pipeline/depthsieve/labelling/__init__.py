"""One shard: decode, teacher, reliability, arrays."""
