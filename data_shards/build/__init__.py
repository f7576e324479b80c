"""From a description and raw files to a finished data set."""
