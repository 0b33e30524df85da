"""Labels as files that another tool reads: ``depthsieve export STORE OUT --for TARGET``.

A new target is a module ``to_NAME.py`` and a row in :mod:`~depthsieve.export.table`.
"""
