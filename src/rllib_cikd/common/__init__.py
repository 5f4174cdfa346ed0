"""What every room may import: errors, result keys, files."""
