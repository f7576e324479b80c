"""Readers of published formats: thin adapters over the libraries that know them."""
