"""The command line of depthsieve."""
