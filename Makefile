# Everything that can be made here; `make help` lists it.
#
# What is installed goes to .venv and .make, and nowhere else but Debian's own packages. A stamp in .make
# is older than pyproject.toml as soon as that changes, and is made again.

# The first Python that is new enough; another one: make serve PYTHON=/opt/python/bin/python3
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)

# How many tests run at a time: one more than there are processors, as many wait for a server, but at most 4.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); n=$$((n + 1)); [ "$$n" -gt 4 ] && n=4; echo "$$n")

# What follows the command of `make serve`: make serve ARGS="server.ini --port 9000"
ARGS ?=

# Debian keeps nginx where only root looks.
export PATH := $(PATH):/usr/sbin

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

# The tools of other people that the client tests run, each in an environment of its own.
CLIENTS := pip uv twine poetry hatch pdm flit build
# What a tool needs said beside its name: pdm 2.29 takes any newer version of these two, and fails with them.
ALSO_pdm := 'hishel<2' 'unearth<0.19'

# Stand-ins for services that have no server of their own to install, each in an environment of its own: they
# want other versions of what we need, too. Of some, any release may behave otherwise, and ours are those that
# the tests were written with.
EMULATORS := azurite gcs ministack moto
PACKAGES_azurite := azurite@3.35.0
PACKAGES_gcs := 'gcp-storage-emulator==2026.7.19'
PACKAGES_ministack := 'ministack==1.5.33'
PACKAGES_moto := 'moto[dynamodb,s3]>=5.2.5' flask flask-cors

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test lint format docs bench clean clients emulators debian wheel

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

serve: .make/runtime ## run a server on http://localhost:8080/ with its data in ./pypicloud-data
	@$(BIN)/pypicloud serve $(ARGS)

test: .make/development debian clients emulators ## check and test everything: all that has to pass before a change goes in
	@$(MAKE) --no-print-directory lint wheel
	@$(BIN)/coverage erase
	PYPICLOUD_WHEEL="$$(echo $(CURDIR)/dist/*.whl)" PYPICLOUD_CLIENTS="$(CURDIR)/.make/clients/bin" \
		$(BIN)/coverage run -m pytest -n $(WORKERS) --dist worksteal
	@$(BIN)/coverage combine --quiet
	@# What a killed server leaves half-written cannot be counted.
	@rm -f .coverage.*
	$(BIN)/coverage report
	@$(MAKE) --no-print-directory docs

lint: .make/development ## style, types and layers, without the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .make/development ## put the source into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: .make/development ## build the documentation to docs/_build/html; a warning is an error
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --doctree-dir docs/_build/doctrees docs docs/_build/html

bench: .make/development debian emulators ## measure the server beside others; ARGS go to benchmarks/run.py
	$(BIN)/python benchmarks/run.py $(ARGS)

clean: ## remove all that was made; pypicloud-data stays
	rm -rf .venv .make dist docs/_build .coverage .coverage.* htmlcov benchmarks/.work
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

wheel: .make/development
	@rm -rf dist
	$(BIN)/hatchling build --target wheel --directory dist

# --- environments ---------------------------------------------------------------------------------------

# $(call apt,packages): install packages of Debian, or say which are missing.
define apt
if ! command -v apt-get >/dev/null; then echo >&2 "Please install $(1) and try again."; exit 1; fi; \
if [ "$$(id -u)" = 0 ]; then as_root=; elif command -v sudo >/dev/null; then as_root=sudo; else \
	echo >&2 "Please run this as root and try again: apt-get install $(1)"; exit 1; fi; \
echo Installing $(1); \
$$as_root apt-get update -qq && \
$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $(1) >/dev/null
endef

# A regular file, so that make sees how old the environment is. Debian keeps ensurepip in a package of its
# own, and without it nothing here can be installed.
.venv/pyvenv.cfg:
	@[ -n "$(PYTHON)" ] || { \
		echo >&2 "PyPICloud needs Python 3.11 or newer; say where it is: make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { $(call apt,python3-venv); }
	@rm -rf .venv
	@echo "Making .venv with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv .venv
	@$(PIP) install --upgrade 'pip>=25.1'

.make/runtime: .venv/pyvenv.cfg pyproject.toml
	@mkdir -p .make
	@echo "Installing what the server needs"
	@$(PIP) install --editable .
	@touch $@

# mysqlclient has no wheels for Linux and is compiled, against the headers of the Python that .venv is made of.
.make/development: .make/runtime
	@missing=; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	command -v pkg-config >/dev/null || missing="$$missing pkg-config"; \
	pkg-config --exists libmariadb 2>/dev/null || missing="$$missing libmariadb-dev"; \
	[ -e "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || \
		missing="$$missing python3-dev"; \
	[ -z "$$missing" ] || { $(call apt,$$missing); }
	@echo "Installing what developers need"
	@$(PIP) install --group dev
	@touch $@

# Each tool goes to a folder of its own, and its command is linked into .make/clients/bin.
.make/clients/%.stamp: Makefile | .venv/pyvenv.cfg
	@echo "Installing $*"
	@rm -rf .make/clients/$* && mkdir -p .make/clients/bin
	@"$(PYTHON)" -m venv --without-pip .make/clients/$*
	@$(PIP) --python .make/clients/$*/bin/python install $* $(ALSO_$*)
	@for name in $* pyproject-$*; do \
		[ ! -x .make/clients/$*/bin/$$name ] || ln -sf ../$*/bin/$$name .make/clients/bin/; done
	@touch $@

clients: .venv/pyvenv.cfg
	@$(MAKE) --silent --no-print-directory --jobs=4 $(CLIENTS:%=.make/clients/%.stamp)

# This one is for Node. npm keeps what is there already, which has many parts.
.make/emulators/azurite.stamp: Makefile
	@command -v npm >/dev/null || { $(call apt,nodejs npm); }
	@echo "Installing azurite"
	@mkdir -p .make/emulators/azurite
	@npm install --prefix .make/emulators/azurite --no-package-lock --no-audit --no-fund --silent $(PACKAGES_azurite)
	@touch $@

# The tests start each from .make/emulators/<name>/bin.
.make/emulators/%.stamp: Makefile | .venv/pyvenv.cfg
	@echo "Installing $*"
	@rm -rf .make/emulators/$* && mkdir -p .make/emulators
	@"$(PYTHON)" -m venv --without-pip .make/emulators/$*
	@$(PIP) --python .make/emulators/$*/bin/python install $(PACKAGES_$*)
	@touch $@

emulators: .venv/pyvenv.cfg
	@$(MAKE) --silent --no-print-directory --jobs=2 $(EMULATORS:%=.make/emulators/%.stamp)

# The tests make certificates with openssl, and start the databases, Redis and Ceph, which speaks S3; the benchmarks
# run nginx beside the server, and wrk to make load. Debian keeps PostgreSQL's programs in a folder for each version.
debian:
	@missing=; \
	command -v openssl >/dev/null || missing="$$missing openssl"; \
	command -v nginx >/dev/null || missing="$$missing nginx-light"; \
	command -v wrk >/dev/null || missing="$$missing wrk"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || \
		missing="$$missing postgresql"; \
	command -v mariadbd >/dev/null || missing="$$missing mariadb-server"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v ceph >/dev/null || missing="$$missing ceph-common"; \
	for name in ceph-mon ceph-osd radosgw; do \
		command -v $$name >/dev/null || missing="$$missing $$name"; done; \
	[ -z "$$missing" ] || { $(call apt,$$missing); }
