from __future__ import annotations

import importlib.util
import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import InvalidInput
from ..evaluation import evaluate
from ..installation import missing
from ..plugins.registry import Registry
from ..specs import LoadOptions
from .compare import check
from .options import judging, loading

F = TypeVar("F", bound=Callable[..., Any])
NEEDED = ("prometheus_client", "starlette", "uvicorn", "websockets")
VARIABLE = "BLAZEN_CODEC_TOKENS"
BACKLOG = 128


def limit(name: str, default: float, kind: click.IntRange | click.FloatRange, help: str) -> Callable[[F], F]:
    """Option of a limit, whose default is shown."""
    return click.option(name, default=default, show_default=True, type=kind, help=help)


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
@limit("--max-mb", 100.0, click.FloatRange(min=0.1), "largest upload in MB")
@limit("--max-minutes", 3.0, click.FloatRange(min=0.1), "longest audio in minutes")
@limit("--jobs", 2, click.IntRange(min=1), "jobs that run at once")
@limit("--waiting", 16, click.IntRange(min=0), "jobs that may wait; more are refused")
@click.option(
    "--page/--no-page", "shows_page", default=None, help="serve the page that compares codecs; default: unless there are tokens"
)
@click.option("--api/--no-api", "has_api", default=True, show_default=True, help="serve the interface for programs")
@click.option(
    "--tokens-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"bearer tokens that programs need, one a line; default: those of {VARIABLE}",
)
@limit("--max-streams", 256, click.IntRange(min=1), "streams that are open at once")
@limit("--client-streams", 64, click.IntRange(min=1), "streams of one client")
@limit("--client-requests", 8, click.IntRange(min=1), "HTTP requests of one client at once")
@limit("--queue-seconds", 10.0, click.FloatRange(min=0.1), "seconds of audio that a stream may have queued on either side")
@limit("--idle-seconds", 60.0, click.FloatRange(min=0.1), "silence that ends a stream, in seconds")
@limit("--stall-seconds", 30.0, click.FloatRange(min=0.1), "seconds in which a client must take a message")
@limit("--api-minutes", 60.0, click.FloatRange(min=0.1), "longest audio of an HTTP request")
@limit(
    "--drain-seconds",
    30.0,
    click.FloatRange(min=0),
    "seconds in which open streams may end after SIGTERM; a second signal ends them at once",
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
            raise missing(f"serve needs {package}", "serve")
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
