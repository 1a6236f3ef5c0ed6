"""Adapters to other frameworks, one module each, none of which is imported by anything else here.

Each needs the framework's package, which the extra of its name installs; `docs/integrations.md` shows how to use them.
"""
