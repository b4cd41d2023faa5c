"""Which pipelines there are: where they come from, how they differ, how they are opened."""
