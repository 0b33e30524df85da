"""Depth maps made elsewhere become a store: settings, maps in files, the plan, the shards, the run."""
