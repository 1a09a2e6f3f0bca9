# For developers and CI. A user's own path is `pip install .` and `geotranslate demo`.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.up-to-date

.PHONY: env demo test check slow clean

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

test: check
	$(BIN)/python -m pytest -n 2 -m "not slow"

slow: env
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf .venv demo
