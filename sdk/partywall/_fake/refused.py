"""How the fake sidecar refuses."""


class Refused(Exception):
    """An error answer: a problem of this slug.

    Attributes:
        slug: as in docs/contract.md section 4.
        detail: for people.
        field: of the body, for `invalid-request`.
    """

    def __init__(self, slug: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
        self.field = field
