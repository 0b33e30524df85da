"""The fault campaign: runs that are killed, starved and damaged, then gone on with, and compared to the last byte.

    python -m faults --faults 200 --seed 0          (with tests/ on the path; `make faults` does it)

Every fault is drawn from its kind's own seed, so that one line of the table can be repeated alone.
"""
