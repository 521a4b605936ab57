"""Reads a folder's encrypted store without OuiSync: an implementation of docs/format.md of its own."""
