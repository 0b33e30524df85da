"""Read every byte of a store, and repair what is damaged."""
