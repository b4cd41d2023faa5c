"""How the pocket models are made. Nothing that runs a model imports this."""
