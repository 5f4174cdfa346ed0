"""The `rllib` command: options and help, no logic. What is imported at the top is light."""
