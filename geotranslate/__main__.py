"""``python -m geotranslate`` is the command line."""

from geotranslate.cli.main import run

run()
