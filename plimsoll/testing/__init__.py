"""Contract kits for other people's moves, runtimes and tasks."""
