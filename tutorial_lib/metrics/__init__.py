"""Measurements, one file for each kind. Import the file you need; the package itself imports nothing."""
