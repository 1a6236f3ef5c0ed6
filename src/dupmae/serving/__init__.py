"""The HTTP server (extra `serve`): search, explanations and vectors for programs, and a page for people."""
