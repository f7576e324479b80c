"""The training engine: one loop over a pipeline of stages, and the recipes it runs.

Imports go one way: ``jobs`` -> ``trainer`` -> ``data_shards``.
"""
