# bertir: `make all` builds verified OpenVINO IR of a BERT, `make test` tests bertir. `make help` says more.

PYTHON ?= python3
MODEL ?=
RECIPE ?= reshapable
PRECISION ?= fp16
HEAD ?= pooled
CHECKPOINT ?=
BATCH ?=
SEQ_LEN ?=
OUTPUT ?= dist
BUNDLE ?=
MIRROR ?=
TASK_DATA ?=
FORMAT ?= text
PYTEST_ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
# The virtualenv comes before the engine, which is asked for by it.
.NOTPARALLEL:
.PHONY: all test lint engine docs package clean help build dev

all: build engine ## build, verify and publish the IR
	@$(RUN) invoke build-ir $(if $(MODEL),--model '$(MODEL)') --recipe '$(RECIPE)' --precision '$(PRECISION)' \
	  --head '$(HEAD)' $(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)') \
	  $(if $(BATCH),--batch '$(BATCH)') $(if $(SEQ_LEN),--seq-len '$(SEQ_LEN)') --output '$(OUTPUT)' --format '$(FORMAT)' \
	  $(if $(BUNDLE),--bundle '$(BUNDLE)') $(if $(MIRROR),--mirror '$(MIRROR)') $(if $(TASK_DATA),--task-data '$(TASK_DATA)')

test: dev engine ## run the whole test suite
	@$(RUN) pytest -n auto --maxprocesses=4 $(PYTEST_ARGS)

lint: dev ## ruff, mypy, the locks, and known advisories as of a recorded day
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) invoke lock --check
	@$(RUN) invoke audit

engine: build ## see that a container engine answers; root on Debian or Ubuntu: install one
	@$(RUN) invoke engine >&2

package: dev ## sdist and wheel, in package/: the same bytes wherever they are made from the same files
	@SOURCE_DATE_EPOCH="$$(sed -n 's/^source_date_epoch = //p' docker/image.toml)" \
	  $(RUN) build --no-isolation --outdir package .

docs: dev ## the site of the documentation, in build/docs/: a fault of a page is an error
	@$(RUN) invoke docs

clean: ## remove the virtualenv, the site and what was published (`invoke clean --store` empties the store too)
	@if [ -x $(VENV)/bin/invoke ]; then $(RUN) invoke clean --output '$(OUTPUT)'; fi
	@rm -rf $(VENV) build/docs

help: ## list targets and variables
	@echo 'Targets:'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
	@echo 'Variables of `make all`, with their defaults:'
	@echo '  MODEL=            a name of `invoke models`; empty is its first'
	@echo '  RECIPE=$(RECIPE)'
	@echo '  PRECISION=$(PRECISION)    fp16 or fp32, of the weights'
	@echo '  HEAD=$(HEAD)      pooled, sequence or classifier'
	@echo '  CHECKPOINT=       a directory of your own instead of MODEL'
	@echo '  BATCH=            rows as converted; empty is 1'
	@echo '  SEQ_LEN=          tokens a row; empty is 128'
	@echo '  OUTPUT=$(OUTPUT)       a folder'
	@echo '  BUNDLE=           a file of `invoke fetch --bundle`, instead of the network'
	@echo '  MIRROR=           a URL or folder that has the models'"'"' zips or files'
	@echo '  TASK_DATA=        mrpc, or a folder with a dev.tsv; empty is two rows of our own'
	@echo '  FORMAT=$(FORMAT)       text or json'
	@echo '  PYTHON=$(PYTHON)    3.11 or newer; makes the virtualenv'
	@echo 'Of `make test`: PYTEST_ARGS=, passed on.'

build dev:
	@sh bootstrap.sh '$(PYTHON)' '$(VENV)' $@
