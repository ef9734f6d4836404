"""Models: where they lie, how their weights are read, and how they run."""
