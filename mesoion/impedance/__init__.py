"""Measured impedance: readers, checks, circuits, relaxation times."""
