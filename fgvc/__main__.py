"""``python -m fgvc``: the command line without an installed script."""

from fgvc.cli.main import main

main()
