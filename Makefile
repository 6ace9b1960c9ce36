# mailsrv: everything a developer or a visitor types. The steps themselves are in tools/.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run run-ldap test check bench docs venv crashlab sample

run: $(VENV)/.stamp-run          ## a working mail server on 127.0.0.1 in one command
	@exec $(BIN)/python -P tools/demo.py $(BIN)

run-ldap: $(VENV)/.stamp-run     ## the same with users from an OpenLDAP server that is started beside it
	@exec $(BIN)/python -P tools/demo_ldap.py $(BIN)

test: venv                       ## everything CI runs
	@exec tools/test.sh $(BIN)

check: venv                      ## the fast part, under a minute
	@exec tools/check.sh $(BIN)

bench: venv                      ## the benchmarks of benchmarks/
	@exec tools/bench.sh $(BIN)

docs: venv                       ## the manual, in docs/_build/html
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

venv: $(VENV)/.stamp-dev         ## the virtual environment with all development tools

crashlab: venv                   ## file systems cloned under load; needs root and loop devices
	@exec tools/crashlab.sh $(BIN)

sample: venv                     ## write etc/mailsrv.toml anew from the settings records
	@$(BIN)/mailsrvctl config sample > etc/mailsrv.toml.new && mv etc/mailsrv.toml.new etc/mailsrv.toml

$(VENV)/.stamp-run: pyproject.toml tools/venv.sh
	@tools/venv.sh "$(PYTHON)" $(VENV)
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml tools/venv.sh
	@tools/venv.sh "$(PYTHON)" $(VENV) test docs
	@touch $@ $(VENV)/.stamp-run
