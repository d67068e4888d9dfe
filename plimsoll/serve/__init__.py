"""Artifact to endpoint: one supervisor that listens, and one worker process for each version of the artifact."""
