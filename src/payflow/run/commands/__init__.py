"""One file per verb of the command line, each with `register(app)`. Heavy imports belong inside the functions."""
