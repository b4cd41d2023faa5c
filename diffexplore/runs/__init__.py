"""Running a model: one run, what watches or changes it, whose turn it is, and what is remembered."""
