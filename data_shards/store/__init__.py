"""The store on disk: schema, manifest and shard files of a data set."""
