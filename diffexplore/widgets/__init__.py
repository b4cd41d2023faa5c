"""What a person sees: `film` encodes a trace once, `viewer` shows films in a browser, `explorer` puts controls around a
viewer."""
