from __future__ import annotations

import dataclasses

import click

from ..installation import how_to_install
from ..plugins.discovery import discover
from .options import as_json, print_json


@click.command("plugins")
@as_json
def command(as_json: bool) -> None:
    """List the plugins found, including broken ones."""
    plugins = discover()
    if as_json:
        print_json([dataclasses.asdict(record) for record in plugins.records])
        return
    if not plugins.records:
        click.echo(f"No plugin is installed. {how_to_install()}")
    for record in plugins.records:
        models = ", ".join(spec.name for spec in plugins.specs().get(record.name, ()))
        state = "disabled" if record.disabled else f"BROKEN: {record.error}" if record.error else models or "no models"
        click.echo(f"{record.name:<12} {record.distribution} {record.version:<10} {state}")
