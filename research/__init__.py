"""Tandem: retrieve, rerank, generate, and the ablations around it."""

__version__ = "0.1.0"
