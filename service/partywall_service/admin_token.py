"""The admin's token: given, or made once and kept in the data directory."""

import os
import secrets
from pathlib import Path

FILE = "admin-token"


def keep_admin_token(data_dir: Path) -> str:
    """Return the token in `<data_dir>/admin-token`, made there (mode 0600) when there is none.

    Of several processes that make one at once, all return the same.

    Raises:
        OSError: the directory cannot be read or written.
        ValueError: the file holds no token.
    """
    path = data_dir / FILE
    if not path.exists():
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = data_dir / f"{FILE}.{os.getpid()}"
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        try:
            path.hardlink_to(draft)  # appears whole, and only if nobody else was first
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    token = path.read_text().strip()
    if not token:
        raise ValueError(f"{path} is empty: remove it, and the next start makes a new token")
    return token
