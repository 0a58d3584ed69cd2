from __future__ import annotations

import importlib.util
import socket
import webbrowser
from typing import Any

import click

from ..errors import EngineNotAvailable, InvalidInput
from ..evaluation import evaluate
from ..specs import LoadOptions
from .compare import check
from .options import judging, loading

NEEDED = ("starlette", "uvicorn", "websockets")
BACKLOG = 128


@click.command("serve")
@click.option(
    "-c", "--codec", "names", multiple=True, metavar="NAME", help="a model to offer; repeatable; default: all installed models"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen at; any but loopback lets others in")
@click.option(
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="another host name of this server, such as a proxy's; repeatable",
)
@click.option(
    "--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="port to listen at; 0 for a free one"
)
@click.option("--open", "show", is_flag=True, help="open the page in the browser")
@click.option("--max-mb", default=100.0, show_default=True, type=click.FloatRange(min=0.1), help="largest upload in MB")
@click.option("--max-minutes", default=3.0, show_default=True, type=click.FloatRange(min=0.1), help="longest audio in minutes")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(min=1), help="jobs that run at once")
@click.option("--waiting", default=16, show_default=True, type=click.IntRange(min=0), help="jobs that may wait; more are refused")
@judging
@loading
def command(
    names: tuple[str, ...],
    host: str,
    allowed: tuple[str, ...],
    port: int,
    show: bool,
    max_mb: float,
    max_minutes: float,
    jobs: int,
    waiting: int,
    judge: evaluate.Scorer,
    **options: Any,
) -> None:
    """Serve a page that compares codecs: upload or record audio, hear and see each codec as it runs, download its tokens.

    Only this machine can reach it, unless `--host` says otherwise. Uploads are not kept. Needs the extra `serve`.
    """
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise EngineNotAvailable(f"{package} is not installed. Run pip install 'blazen-codec-core[serve]'")
    check(judge, pictures=True)
    import uvicorn

    from ..server.app import application
    from ..server.catalog import CodecCatalog, Limits
    from ..server.door import config
    from ..server.hosts import Hosts

    limits = Limits(bytes=int(max_mb * 1e6), seconds=max_minutes * 60, at_once=jobs, waiting=waiting)
    house = CodecCatalog(names, LoadOptions.of(**options), limits, judge)
    hosts = Hosts(host, allowed)
    if hosts.is_public:
        click.echo(f"warning: {host} is reachable from other machines, without a password", err=True)
    with listening(host, port) as door:
        address, number = door.getsockname()[:2]
        where = f"http://{f'[{address}]' if ':' in address else address}:{number}/"
        click.echo(f"listening at {where} (press ctrl-c to stop)")
        if show:
            webbrowser.open(where)
        uvicorn.Server(config(application(house, hosts))).run([door])


def listening(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        InvalidInput: The address does not exist here, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or error
        raise InvalidInput(f"cannot listen at {host} port {port}: {reason}. Use --port 0 for a free port") from error
