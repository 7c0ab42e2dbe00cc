"""Moment tensor potentials: file format, basis tables, kernels, training."""
