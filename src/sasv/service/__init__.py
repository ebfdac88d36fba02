"""The HTTP service: enrolment, verification, identification, detection, and streams."""

from typing import TYPE_CHECKING

from sasv.core.lazy import lazily

if TYPE_CHECKING:
    from sasv.service.app import create_app
    from sasv.service.settings import Settings

__all__ = ["Settings", "create_app"]

# The application needs the extra ``serve``.
__getattr__ = lazily(__name__, {"app": ("create_app",), "settings": ("Settings",)})
