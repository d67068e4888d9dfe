"""The stopwatch: machine, clock, arrivals and statistics."""
