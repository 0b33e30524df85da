"""The verbs that write a store."""
