"""The command `blazen-codec`, one file a subcommand."""
