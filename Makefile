# Two commands do everything on a fresh machine, set-up included: make demo, make test. The second includes make test-android where Java is.
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
ANDROID := build/android
ANDROID_TOOLS := java mvn aapt2 zipalign apksigner
NO_SCREEN = $(shell command -v Xvfb >/dev/null && command -v xdotool >/dev/null && $(PYTHON) -c 'import tkinter' 2>/dev/null || echo ' and not screen')
MISSING = $(shell for tool in $(ANDROID_TOOLS); do command -v $$tool >/dev/null || echo $$tool; done)

.PHONY: demo test docs fuzz test-long test-heavy test-android arm64 test-arm64 test-floors test-export test-programs test-zoo clean

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'error: Python 3.11 or newer is needed; give it with make PYTHON=...'; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo 'error: Python has no venv; on Debian: apt-get install python3-venv'; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/ready
	$(BIN)/clipstep demo --out $(DEMO)

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/package/user.py
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal -m 'not arm64 and not floors and not heavy and not installs and not long and not zoo$(NO_SCREEN)'  # The tests' networks are too small for more threads.
	@echo 'left out: the tests of whole commands and of 200 random networks: make test-long; the cases that take longest, of which it runs a few: make test-heavy; those that count ARM64 instructions under QEMU: make test-arm64; those that download the lowest versions allowed: make test-floors; that which installs clipstep[export] alone: make test-export; thousands of random networks: make test-programs; the networks that people deploy: make test-zoo'
	@[ -z "$(NO_SCREEN)" ] || echo 'left out: the tests of the window of clipstep run --show, for want of Xvfb, xdotool or tkinter; on Debian: apt-get install xvfb xdotool python3-tk'
	@if [ -z "$(MISSING)" ]; then $(MAKE) test-android; else echo 'left out: make test-android (the Kotlin runtime and the Android app), for want of: $(MISSING)'; fi

# Whole commands that take many seconds, and 200 random networks.
test-long: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal -m 'long and not heavy'

# The variants of a test that take longest; make test runs a few of each.
test-heavy: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal -m heavy

# The documentation as a site, build/site/index.html; a warning is an error. For its search: python -m http.server --directory build/site
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# 20,000 damaged manifests and 2,000 damaged artifacts of each kind, whose hashes fit: half an hour. Then 13,000 damages of each of four kinds for
# the Kotlin loader, in the bundle of make test-android. docs/security.md
fuzz: .venv/ready
	$(BIN)/python tests/fuzz/fuzz.py build/fuzz.clipstep
	@[ -d $(ANDROID) ] || { echo 'error: no $(ANDROID): run make test-android first'; exit 2; }
	mvn --batch-mode --no-transfer-progress -pl runtime/kotlin -am verify -Dtest=FuzzTest -Dsurefire.failIfNoSpecifiedTests=false -Dclipstep.fuzz=13000

# The Kotlin runtime on golden steps, the app on Android's own classes, its screens in build/android/screens, and its APK; no phone.
test-android: .venv/ready
	@[ -z "$(MISSING)" ] || { echo 'error: not installed: $(MISSING); on Debian: apt-get install openjdk-17-jdk-headless maven aapt zipalign apksigner'; exit 2; }
	rm -rf $(ANDROID)
	$(BIN)/python tests/android/prepare.py $(ANDROID) $(RUN)
	$(BIN)/python tests/android/apk.py resources $(ANDROID)
	mvn --batch-mode --no-transfer-progress clean verify
	$(BIN)/python tests/android/apk.py package $(ANDROID)
	$(BIN)/clipstep report $(ANDROID)/demo.clipstep $(ANDROID)/records.jsonl

# What clipstep bench --arch arm64 needs, in the cache folder; docs/arm64.md
arm64: .venv/ready
	$(BIN)/clipstep arm64

test-arm64: arm64
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal -m arm64

# The lowest versions that pyproject.toml allows, downloaded into an environment of their own.
test-floors: .venv/ready
	$(BIN)/pytest -m floors tests/package/test_floors.py

# clipstep[export] alone, installed into an environment of its own (5 GB), exports a module.
test-export: .venv/ready
	$(BIN)/pytest -m installs tests/package/test_export_install.py

# 5,100 random networks on the three targets, hours; make test-long tries 200. PROGRAMS is the number for each target.
test-programs: .venv/ready
	PROGRAMS=$(or $(PROGRAMS),1700) $(BIN)/pytest tests/export/test_programs.py

# The networks of torchvision, PyTorchVideo and others that clipstep bench-models --family zoo measures, exported to all targets; docs/zoo.md
test-zoo: .venv/ready
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev,zoo]'
	$(BIN)/pytest -m zoo tests/benchmarks/test_zoo_exports.py

clean:
	rm -rf .venv build dist runs *.egg-info runtime/kotlin/target runtime/kotlin/executorch-api/target runtime/android/target android_demo/app/target
