"""Django apps in one process, whose settings can be made only once."""

from typing import Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest


class _Site(ASGIHandler):
    def __init__(self, urls: str) -> None:
        super().__init__()
        self._urls = urls

    def create_request(self, scope: Any, body_file: Any) -> Any:
        request, refusal = super().create_request(scope, body_file)
        if isinstance(request, ASGIRequest):
            request.urlconf = self._urls
        return request, refusal


def django_app(urls: str) -> Any:
    """An ASGI app.

    Args:
        urls: the module with its `urlpatterns`.
    """
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="for tests", ROOT_URLCONF="none")
        django.setup()
    return _Site(urls)
