"""Adapters to RLlib, and the only place that calls what is private there."""
