"""Read every byte of a store, and mend what is damaged."""
