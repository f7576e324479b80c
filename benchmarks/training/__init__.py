"""How fast the engine trains: see README.md."""
