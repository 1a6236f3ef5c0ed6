"""The HTTP server: search, explanations and embeddings for applications, and a page for people; needs the extra `serve`."""
