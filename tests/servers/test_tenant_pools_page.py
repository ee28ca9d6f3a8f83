"""docs/pools.md: its code, typed in as it stands there, against a real PostgreSQL."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

from tests.servers.pool_shop import fetch
from tests.support.pages import ROOT, blocks
from tests.support.run import TestRun

PAGE = ROOT / "docs" / "pools.md"


def test_the_page_runs_and_shows_a_tenant_its_own_rows(test_run: TestRun, tmp_path: Path) -> None:
    role = f"shop_{uuid.uuid4().hex[:12]}"
    code = "\n\n".join(blocks(PAGE, "python")).replace("shop_tenant", role)
    (tmp_path / "page.py").write_text(code)
    database = test_run.create_database()
    url = database.replace("postgresql:", "postgresql+psycopg:")
    try:
        done = subprocess.run(
            [sys.executable, "-W", "error", "page.py"],
            cwd=tmp_path,
            env={**os.environ, "DATABASE_URL": url},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        test_run.drop_database(database)
        fetch(test_run.postgres.url, f"DROP ROLE IF EXISTS {role}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "['acme']\n", "")
