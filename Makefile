# Every target sets itself up: the first one makes .venv and installs the pinned versions into it.
PYTHON ?= python3
BIN := .venv/bin
RUN_ARGS ?=
RELEASE_ARGS ?=

.PHONY: help run test docs lab notebooks seeds bench release hooks clean
help:
	@echo "make run        draw the built-in scenes, run the series into runs/demo/, write the report"
	@echo "                (other data or settings: make run RUN_ARGS='--data DIR --name NAME --set epochs=3'; --lessons: all notebooks)"
	@echo "make test       nbdev-test on every notebook, pytest, and 'clean and export change nothing'"
	@echo "make lab        JupyterLab on the notebooks"
	@echo "make docs       the documentation site, into _docs/; says which file to open"
	@echo "make seeds      the demo with several seeds: how far scores wander (an hour and more on two cores)"
	@echo "make bench      time what surrounds the network, against the usual way of doing it"
	@echo "make notebooks  run every notebook once at the tiny profile and keep its outputs"
	@echo "make hooks      once per checkout: notebooks are cleaned when saved and committed, and merged cell by cell"
	@echo "make release    check versions, build, and run the tiny profile from the wheel in a new environment"

.venv/.ready: settings.ini setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "aerialseg needs Python 3.11 or newer: install it, or name it: make PYTHON=/path/to/python3.12 …"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "Python's venv module is missing: sudo apt install python3-venv"; exit 2; }
	@echo "== setting up .venv (once; several GB with PyTorch)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "setuptools>=77" wheel
	$(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation -c constraints.txt -e ".[dev]"
	@touch $@

run: .venv/.ready
	$(BIN)/aerialseg run --profile demo --overwrite $(RUN_ARGS)

test: .venv/.ready
	$(BIN)/python tests/gates.py

lab: .venv/.ready
	$(BIN)/jupyter lab --config=lab/config.py

docs: .venv/.ready
	$(BIN)/python docs/build.py

seeds: .venv/.ready
	$(BIN)/python bench/seeds.py demo 0 1 2 3 4

bench: .venv/.ready
	$(BIN)/python bench/around.py
	$(BIN)/python bench/loader.py
	$(BIN)/python bench/inference.py
	$(BIN)/python bench/mapping.py

notebooks: .venv/.ready
	$(BIN)/python tests/gates.py notebooks

# nbdev's own hooks, and one that cleans what is committed; by full path, so that git finds the programs in any shell
hooks: .venv/.ready
	$(BIN)/nbdev-install-hooks
	git config --local merge.jupyternotebook.driver '"$(abspath $(BIN))/nbdev-merge" %O %A %B %P'
	git config --local diff.jupyternotebook.command '"$(abspath $(BIN))/nbdev-diff-driver"'
	printf '#!/bin/sh\n"%s/nbdev-trust"\n' '$(abspath $(BIN))' > .git/hooks/post-merge
	sed 's|@BIN@|$(abspath $(BIN))|' .githooks/pre-commit > .git/hooks/pre-commit && chmod +x .git/hooks/pre-commit .git/hooks/post-merge

release: .venv/.ready
	$(BIN)/python tests/gates.py release $(RELEASE_ARGS)

clean:
	rm -rf _docs _proc build dist *.egg-info
