"""The public port: what visitors and the pages of others may call."""

from service.api.public.port import PublicDeps, create_public_app

__all__ = ["PublicDeps", "create_public_app"]
