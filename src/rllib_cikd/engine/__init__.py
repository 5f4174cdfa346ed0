"""Speed: stacked perceptrons, their optimiser, recorded steps. Knows no SAC."""
