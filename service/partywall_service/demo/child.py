"""`python -m partywall_service.demo.child ROLE`: one of the processes that a demo starts.

It ends when its standard input does, so none outlives the demo, however that ends.
"""

import logging
import os
import signal
import sys
import threading

SHOPS = {"plain": "plain", "protected": "protected"}


def main() -> None:
    """Plays the role that the command line names, with what further it says."""
    threading.Thread(target=_follow_stdin, name="follow-stdin", daemon=True).start()
    role, *arguments = sys.argv[1:]
    if role in SHOPS:
        _serve_shop(SHOPS[role], int(arguments[0]))
    elif role == "arq":
        _run_arq(arguments[0])
    else:
        sys.argv = ["partywall", role, *arguments]
        from partywall_service.__main__ import main as command

        command()


def _serve_shop(name: str, port: int) -> None:
    import uvicorn

    uvicorn.run(
        f"partywall_service.demo.shop:{name}",
        factory=name == "protected",
        port=port,
        access_log=False,
        log_level="warning",
    )


def _run_arq(redis_url: str) -> None:
    from arq.connections import RedisSettings
    from arq.worker import run_worker

    from partywall_service.demo.work import Plain

    logging.getLogger("arq").setLevel(logging.WARNING)
    run_worker(Plain, redis_settings=RedisSettings.from_dsn(redis_url))  # type: ignore[arg-type] # arq's protocol lists every setting there is


def _follow_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
