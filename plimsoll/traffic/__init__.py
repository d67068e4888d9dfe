"""What arrives at a service: requests sent on a schedule, timed from when they were due, and what that says of it."""
