"""Web server for comparisons of uploaded audio, on one machine. Needs the extra `serve`."""
