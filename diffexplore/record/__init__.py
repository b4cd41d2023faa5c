"""What happened in a run, as data: steps, their numbers, and the file they are kept in."""
