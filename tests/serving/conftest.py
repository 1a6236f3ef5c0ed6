from __future__ import annotations

from conftest_serving import built, client, folder

__all__ = ["built", "client", "folder"]
