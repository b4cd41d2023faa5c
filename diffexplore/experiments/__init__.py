"""Studies made of many runs, one a file."""
