"""The grid of a comparison: plan, run, raw figures."""
