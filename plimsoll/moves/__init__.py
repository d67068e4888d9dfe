"""One file per move."""
