"""The comparison as a page that one drops audio on, for one machine. Needs the extra `serve`."""
