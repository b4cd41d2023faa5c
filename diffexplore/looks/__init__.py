"""What a record looks like: views, curves, pictures and figures."""
