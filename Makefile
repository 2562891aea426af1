# PNet companion. `make` or `make help` lists the targets; only Python >= 3.11 and make are needed.
.DEFAULT_GOAL := help

PROFILE ?= standard
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
MEMORY_MB ?= 8000
VENV ?= .venv
PYTHON ?=

# cpu: PyTorch's own CPU wheels, 200 MB. cuda: the build on PyPI with its CUDA libraries, several GB.
TORCH ?= cpu
ifeq ($(TORCH),cpu)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
else
TORCH_INDEX ?=
endif

# What notebooks and commands read from the environment; an empty value is none.
$(foreach name,SDSS_MIRROR SKYMAKER_FRAMES PNET_DATA,$(if $($(name)),$(eval export $(name)),$(eval unexport $(name))))

# ENV=active takes the environment that is active (conda, say) as it is and installs nothing.
ifeq ($(ENV),active)
PY := python
READY :=
else
PY := $(VENV)/bin/python
READY := $(VENV)/.ready-$(TORCH)
endif

# One thread for numerical libraries, as the steps themselves run side by side.
RUN := OMP_NUM_THREADS=1 $(PY)

.PHONY: help book test bench train-gpu notebooks lint lock install clean clean-venv

help: ## this list
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'
	@echo "Variables:"
	@printf '  %-28s %s\n' \
	  'PROFILE=$(PROFILE)' 'smoke, standard, paper, or the path of a profile of your own' \
	  'SDSS_MIRROR=$(SDSS_MIRROR)' 'folder or URL of an SDSS sas tree; the SDSS server where empty' \
	  'SKYMAKER_FRAMES=$(SKYMAKER_FRAMES)' 'folder of existing SkyMaker frames, in place of a run of sky' \
	  'TORCH=$(TORCH)' 'cpu or cuda' \
	  'TORCH_INDEX=<URL or folder>' 'where wheels of torch come from, now $(or $(TORCH_INDEX),PyPI)' \
	  'PYTHON=$(PYTHON)' 'Python (3.11 or later) of the environment; found where empty' \
	  'ENV=$(ENV)' 'active: use the active environment and install nothing' \
	  'JOBS=$(JOBS)' 'steps or tests at a time'

book: $(READY) ## simulate, measure, run the notebooks, build the website
	@$(RUN) -m pnet make --profile '$(PROFILE)' --jobs $(JOBS) --memory $(MEMORY_MB)

test: $(READY) ## run the tests
	@$(RUN) -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

bench: $(READY) ## speed and memory of PNet and of the classical baselines
	@$(RUN) -m studies bench

# The training runs of the profile paper, one after the other, each resumable; several GPUs share the work of a step.
# `make book PROFILE=paper` goes on from there. A trial: make train-gpu PROFILE=smoke ACCELERATOR=cpu EPOCHS=1 STEPS=2
comma := ,
TRIAL = $(foreach name,ACCELERATOR EPOCHS STEPS,$(if $($(name)),$(shell echo $(name) | tr A-Z a-z): $($(name))$(comma)))
train-gpu: PROFILE = paper
train-gpu: $(READY) ## train all networks at the paper's size on the GPUs at hand
	@$(RUN) -m pnet make --profile '$(PROFILE)' --jobs $(JOBS) --memory $(MEMORY_MB) trained --config 'steps={train: {$(TRIAL)}}'

notebooks: $(READY) ## write the output-free .ipynb beside each notebook's source
	@$(RUN) -m pnet pair

lint: $(READY) ## check style, and that each notebook and its .ipynb are in step
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m pnet pair --check

install: $(READY) ## make the environment only

clean: ## delete what runs have made, but neither downloads nor the environment
	rm -rf build .snakemake .pytest_cache .ruff_cache

clean-venv: ## delete the environment
	rm -rf '$(VENV)'

# The environment is as old as the lock: a change of either file updates it. On Linux the CPU wheel is asked for by
# its full name, 2.13.0+cpu, so that neither an index out of reach nor a mirror can bring the CUDA build uninvited.
# --no-deps, as requirements.lock is complete; what it leaves out, and why, is said in it.
$(VENV)/.ready-$(TORCH): requirements.lock pyproject.toml
	@set -e; \
	tested='import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; \
	newer='import sys; sys.exit(not (3, 11) <= sys.version_info)'; \
	if [ ! -x '$(PY)' ]; then \
	  chosen=''; \
	  for test in "$$tested" "$$newer"; do \
	    for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	      if [ -z "$$chosen" ] && "$$name" -c "$$test" >/dev/null 2>&1; then chosen="$$name"; fi; \
	    done; \
	  done; \
	  if [ -z "$$chosen" ]; then \
	    echo "PNet needs Python 3.11 or later; looked for: $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)." >&2; \
	    echo "Install one, and name it if it is elsewhere: make <target> PYTHON=/path/to/python3.12" >&2; exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$("$$chosen" --version)"; \
	  "$$chosen" -m venv '$(VENV)' || { rm -rf '$(VENV)'; \
	    echo "That Python cannot make environments; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }; \
	fi; \
	pip="$(PY) -m pip --disable-pip-version-check -q"; \
	torch="$$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)"; \
	index='$(if $(TORCH_INDEX),$(if $(wildcard $(TORCH_INDEX)),--find-links,--extra-index-url) $(TORCH_INDEX))'; \
	if [ '$(TORCH)' = cpu ]; then \
	  if [ "$$(uname -s)" = Linux ]; then torch="$$torch+cpu"; fi; \
	  echo "Installing $$torch"; \
	  $$pip install --no-deps --retries 1 --timeout 30 $$index "$$torch" || { \
	    echo "PyTorch's CPU wheel cannot be had from $(TORCH_INDEX)." >&2; \
	    echo "TORCH_INDEX=<URL or folder> names another place; TORCH=cuda takes the build on PyPI (several GB)." >&2; exit 1; }; \
	elif [ '$(TORCH)' = cuda ]; then \
	  echo "Installing $$torch with CUDA"; \
	  $(PY) -c 'import importlib.metadata as m; v = m.version("torch"); raise SystemExit(v.endswith("+cpu"))' 2>/dev/null \
	    || $$pip uninstall -y torch; \
	  $$pip install $$index "$$torch"; \
	else echo "TORCH is '$(TORCH)'; allowed are cpu and cuda" >&2; exit 1; fi; \
	echo "Installing the packages of requirements.lock"; \
	$$pip install --no-deps -r requirements.lock; \
	$$pip install --no-deps --no-build-isolation --editable .; \
	rm -f '$(VENV)'/.ready-*; touch '$@'

# Versions for Linux and macOS, Python 3.11 and later, in one file. Torch's CUDA libraries are left out, as torch
# brings its own where they are wanted, and so is what only metadata asks for.
lock: $(READY) ## resolve the versions of requirements.lock anew
	@$(PY) -m pip install -q uv
	@printf '%s\n' 'torchvision ; python_version < "3"' 'tensorboard ; python_version < "3"' > '$(VENV)/overrides.txt'
	@sed -n '/^#/p' requirements.lock > '$(VENV)/lock.txt'
	@$(PY) -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-header --no-annotate \
	  --no-emit-index-url --overrides '$(VENV)/overrides.txt' $(LOCK_ARGS) -q -o - \
	  | grep -vE '^(nvidia-|cuda-|triton)|sys_platform == .win32' >> '$(VENV)/lock.txt'
	@mv '$(VENV)/lock.txt' requirements.lock; rm -f '$(VENV)/overrides.txt'
