"""The `rllib` command: options and help, no logic."""
