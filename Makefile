# For developers and CI. A user's own path is `pip install .` and `geotranslate demo`.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.up-to-date
APT := -o Acquire::Retries=0 -o Acquire::http::Timeout=20

.PHONY: env demo test check browser slow clean

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "geotranslate needs Python 3.11 or newer; say make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: env
	$(BIN)/geotranslate demo -o demo

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict geotranslate

# Tests open the report in Chromium. Where it is missing and cannot be installed, they are skipped.
browser:
	@{ command -v chromium && command -v chromedriver; } >/dev/null || \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get -qq $(APT) update && \
			DEBIAN_FRONTEND=noninteractive apt-get -qq -y $(APT) install --no-install-recommends \
				chromium chromium-driver >/dev/null; \
		else false; fi || echo "No Chromium: tests of the report in a browser are skipped."

test: check browser
	$(BIN)/python -m pytest -n 2 -m "not slow"

slow: env
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf .venv demo
