"""Files in, tensors out: genomic files become Zarr shards, shards become batches.

No model code lives here. Import direction: ``jobs`` -> ``trainer`` -> ``data_shards``.
"""
