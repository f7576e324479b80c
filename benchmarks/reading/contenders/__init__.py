"""Who is measured: one file a library or family. Libraries are imported where they are used."""
