"""How far a label can be trusted: disagreement signals, their fusion into an expected error, and its uint8 code."""
