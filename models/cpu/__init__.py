"""Faster convolutions and matrix products on CPUs."""
