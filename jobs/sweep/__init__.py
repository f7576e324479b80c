"""Sweeps: many trials of one recipe, a study that survives everything, and warm worker groups.

Read in this order: ``space`` (what is searched), ``study`` (the storage, the only truth), ``board``
(hands trials out, takes reports), ``slot`` (runs trial after trial in a worker group), ``campaign``
(the driver that keeps slots alive, shows the table and talks to MLflow).
"""
