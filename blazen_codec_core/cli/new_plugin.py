from __future__ import annotations

from pathlib import Path

import click

from ..template import write_plugin
from .options import quiet, say


@click.command("new-plugin")
@click.argument("name")
@click.option("-o", "--output", "folder", default=".", type=click.Path(path_type=Path, file_okay=False), help="the parent folder")
@click.option("--continuous", is_flag=True, help="a codec with latents and no tokens: a small VAE")
@quiet
def command(name: str, folder: Path, continuous: bool, quiet: bool) -> None:
    """Create a codec plugin to start from: small, installable, tested, and passing every contract."""
    project = write_plugin(name, folder, continuous=continuous)
    say(f"{project}: next, pip install -e '{project}[test]' && pytest {project}", quiet)
