"""`python -m blazen_codec_core` is the command `blazen-codec`."""

from .cli.main import main

main()
