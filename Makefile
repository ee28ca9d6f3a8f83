# Partywall's commands. Python 3.11 or newer and make are all they need.
#
#   make run ARGS="--port 9000"      further arguments for what is run
#   make run PYTHON=/opt/python3.12  another Python than the one found

.PHONY: help run test lint soak bench clean
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTHON ?=
# One more than there are cores: tests wait for servers about a third of their time.
PARALLEL := -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Its scripts name the folder it was made in; after a move they would run the old one, or nothing.
ifneq ($(wildcard $(VENV)/made-in),)
ifneq ($(shell cat $(VENV)/made-in),$(CURDIR))
$(shell rm -rf $(VENV))
endif
endif

help: ## show this
	@echo 'make TARGET [ARGS="..."]'
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1\t\2/p' Makefile

run: $(VENV)/installed-all ## start the sidecar on http://127.0.0.1:8080 and a worker; Ctrl-C stops both
	@exec $(BIN)/partywall serve --with-worker $(ARGS)

test: $(VENV)/installed-dev ## run the whole test suite, on real servers
	@exec $(BIN)/python -m pytest $(PARALLEL) $(ARGS)

lint: $(VENV)/installed-dev ## check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/installed-dev ## run the property, race and chaos tests at full length
	@PARTYWALL_SOAK=1 exec $(BIN)/python -m pytest $(PARALLEL) --timeout 3600 $(ARGS)

bench: $(VENV)/installed-dev ## run the side-by-side benchmarks
	@exec $(BIN)/python -m benchmarks $(ARGS)

clean: ## remove the virtual environment (not the data in .partywall)
	rm -rf $(VENV)

# A virtual environment counts as made only when everything is installed in it: an install that
# was interrupted is made good by the next one, and a change of the dependencies is followed.

$(VENV)/installed-all: pyproject.toml constraints.txt
	@$(call install,all)

$(VENV)/installed-dev: pyproject.toml constraints.txt
	@$(call install,all$(comma)dev)
	@touch $(VENV)/installed-all

comma := ,

define install
set -e; \
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'; \
if ! $(BIN)/python -c "$$new_enough" 2>/dev/null || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	for python in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
		if "$$python" -c "$$new_enough" 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
		echo "Partywall needs Python 3.11 or newer, and none was found: install it, or run make PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi; \
	echo "Making $(VENV) with $$found"; \
	rm -rf $(VENV); \
	"$$found" -m venv $(VENV); \
	echo "$(CURDIR)" >$(VENV)/made-in; \
fi; \
echo "Installing Partywall into $(VENV)"; \
$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(1)]'; \
touch $@
endef
