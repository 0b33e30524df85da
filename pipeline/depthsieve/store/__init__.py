"""The label store: schema, plans, the shard writer and the reader."""

from depthsieve.store.reader import Label, Store, open_store

__all__ = ["Label", "Store", "open_store"]
