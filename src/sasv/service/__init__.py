"""The HTTP service: enrolment, verification, identification, detection, and streams."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sasv.service.app import create_app
    from sasv.service.settings import Settings

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:
    """Import the application when it is first used, because it needs the extra ``serve``."""
    if name == "create_app":
        from sasv.service.app import create_app

        return create_app
    if name == "Settings":
        from sasv.service.settings import Settings

        return Settings
    raise AttributeError(f"module 'sasv.service' has no attribute '{name}'")
