from __future__ import annotations

import importlib.util
import socket
import webbrowser
from pathlib import Path
from typing import Any

import click

from ..errors import EngineNotAvailable, InvalidInput
from ..evaluation import evaluate
from ..plugins.registry import Registry
from ..specs import LoadOptions
from .compare import check
from .options import judging, loading

NEEDED = ("prometheus_client", "starlette", "uvicorn", "websockets")
VARIABLE = "BLAZEN_CODEC_TOKENS"
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
@click.option(
    "--page/--no-page", "shows_page", default=None, help="serve the page that compares codecs; default: unless there are tokens"
)
@click.option("--api/--no-api", "has_api", default=True, show_default=True, help="serve the interface for programs")
@click.option(
    "--tokens-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"bearer tokens that programs need, one a line; default: those of {VARIABLE}",
)
@click.option("--max-streams", default=256, show_default=True, type=click.IntRange(min=1), help="streams that are open at once")
@click.option("--client-streams", default=64, show_default=True, type=click.IntRange(min=1), help="streams of one client")
@click.option(
    "--client-requests", default=8, show_default=True, type=click.IntRange(min=1), help="HTTP requests of one client at once"
)
@click.option(
    "--queue-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="seconds of audio that a stream may have queued on either side",
)
@click.option(
    "--idle-seconds",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="silence that ends a stream, in seconds",
)
@click.option(
    "--stall-seconds",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="seconds in which a client must take a message",
)
@click.option(
    "--api-minutes", default=60.0, show_default=True, type=click.FloatRange(min=0.1), help="longest audio of an HTTP request"
)
@click.option(
    "--drain-seconds",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="seconds in which open streams may end after SIGTERM; a second signal ends them at once",
)
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
    shows_page: bool | None,
    has_api: bool,
    tokens_file: Path | None,
    max_streams: int,
    client_streams: int,
    client_requests: int,
    queue_seconds: float,
    idle_seconds: float,
    stall_seconds: float,
    api_minutes: float,
    drain_seconds: float,
    judge: evaluate.Scorer,
    **options: Any,
) -> None:
    """Serve codecs: an interface for programs, with a WebSocket for each stream, and a page that compares codecs.

    The page at / takes uploads and recordings, lets you hear and see each codec as it runs, and offers its tokens. Programs use
    /v1; docs/serving.md describes it. Only this machine can reach both, unless `--host` says otherwise. Uploads are not kept.
    Needs the extra `serve`.
    """
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise EngineNotAvailable(f"{package} is not installed. Run pip install 'blazen-codec-core[serve]'")
    import uvicorn

    from ..server.api.access import read_tokens

    tokens = read_tokens(tokens_file) if has_api else []
    shows_page = not tokens if shows_page is None else shows_page
    if shows_page and tokens:
        raise click.UsageError("the page has no login; use --no-page with bearer tokens, or run it as another server")
    if not (shows_page or has_api):
        raise click.UsageError("--no-page and --no-api leave nothing to serve")
    if shows_page:
        check(judge, pictures=True)
    from ..comparison.systems import cached_providers
    from ..server.api import Access, ClientLimits, CodecService, ServiceLimits
    from ..server.app import application
    from ..server.catalog import CodecCatalog, Limits
    from ..server.door import CONNECTIONS, DrainingServer, config
    from ..server.hosts import Hosts

    loading = LoadOptions.of(**options)
    provide = cached_providers(Registry(), loading)
    size = int(max_mb * 1e6)
    house = service = None
    if shows_page:
        house = CodecCatalog(
            names, limits=Limits(size, max_minutes * 60, at_once=jobs, waiting=waiting), judge=judge, provide=provide
        )
    limits = ServiceLimits(
        streams=max_streams,
        queue_seconds=queue_seconds,
        idle_seconds=idle_seconds,
        stall_seconds=stall_seconds,
        bytes=size,
        seconds=api_minutes * 60,
        jobs=jobs,
        waiting=waiting,
        drain_seconds=drain_seconds,
    )
    if has_api:
        access = Access(tokens, ClientLimits(client_streams, client_requests))
        service = CodecService(names, loading, limits, access, provide)
    hosts = Hosts(host, allowed)
    if hosts.is_public and not tokens:
        click.echo(f"warning: {host} is reachable from other machines, without a password; see --tokens-file", err=True)
    with listening(host, port) as door:
        address, number = door.getsockname()[:2]
        where = f"http://{f'[{address}]' if ':' in address else address}:{number}/"
        click.echo(f"listening at {where} (press ctrl-c to stop)")
        if show:
            webbrowser.open(where if shows_page else f"{where}listen")
        settings = config(application(house, hosts, service), connections=CONNECTIONS + (max_streams if has_api else 0))
        server = uvicorn.Server(settings) if service is None else DrainingServer(settings, service)
        server.run([door])


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
