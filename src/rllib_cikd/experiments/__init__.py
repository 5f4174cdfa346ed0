"""An experiment file becomes a checked Tune run, and a checkpoint an evaluation."""
