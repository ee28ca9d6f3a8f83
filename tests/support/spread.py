"""How the tests are spread over the processes of a run."""

from xdist.scheduler import LoadFileScheduling


class ByFile(LoadFileScheduling):
    """A file's tests run in one process, which starts once what they share.

    The browser's all run in one, so that one Chromium serves them.
    """

    def _split_scope(self, nodeid: str) -> str:
        """What a test is kept together with."""
        scope: str = super()._split_scope(nodeid)
        folder = scope.rpartition("/")[0]
        return folder if folder == "tests/browser" else scope
