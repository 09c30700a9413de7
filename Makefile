# The commands of this repository. Continuous integration runs the same ones.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check gen bless e2e bench sim sim-bugs fuzz soak envoy images

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | column -t -s '|'

demo: ## two zones, real Envoys, calls from one to the other, on this machine; CHECK=1 ends after the steps
	@tools/envoy.sh >&2
	cargo build --workspace --locked --bins
	@exec target/debug/atoll demo --envoy-path "$$(tools/envoy.sh)" $(if $(CHECK),--check)

test: ## every test that can run here, with the minutes of each group
	tools/test.sh

check: ## format, lints, documentation, layers, licences, sizes, files that nothing compiles, the Helm chart
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
	tools/layers.py
	tools/limits.py
	tools/invariants.py
	tools/licences.py
	tools/size.sh
	tools/sim-bugs.sh --fit
	tools/orphans.sh
	deploy/helm/check.py

gen: ## write what is made of others: custom resource definitions of types, manifests of the Helm chart
	BLESS=1 cargo test -p kinds --locked --quiet --lib -- crd::
	BLESS=1 deploy/helm/check.py
	git --no-pager diff --stat -- deploy cli

bless: ## rewrite the goldens and show what changed
	BLESS=1 cargo test --workspace --locked --no-fail-fast --quiet --lib --bins
	BLESS=1 deploy/helm/check.py
	git --no-pager diff --stat

# What scenarios run.
PROGRAMS := atoll global-cp zone-cp sidecar zone-ingress peer

e2e: ## the end-to-end scenarios, or those whose name contains NAME=; kubernetes: those in clusters
	@tools/packages.sh
	@# Programs and tests in one go: built apart they have other features, and everything is compiled
	@# twice. What is built of others is fetched meanwhile, which leaves processors alone for minutes.
	@trap 'kill $$(jobs -p) 2>/dev/null || true' EXIT; \
	$(if $(filter kubernetes% spire%,$(NAME)),tools/kubernetes.sh >&2 & clusters=$$!;) \
	$(if $(filter kubernetes-long% spire%,$(NAME)),tools/go.sh spire >&2 & spire=$$!;) \
	cargo build --workspace --locked $(PROGRAMS:%=--bin %) --test scenarios --test kubernetes; \
	for each in $${clusters-} $${spire-}; do wait $$each; done
	PATH="$$(dirname "$$(tools/envoy.sh)"):$$PATH" cargo test --workspace --locked --test scenarios --test kubernetes -- \
	    $(if $(filter kubernetes-long% spire%,$(NAME)),--include-ignored) $(NAME)

bench: ## figures of a release build, one JSON line each; NAME= for one benchmark
	@tools/bench.sh $(NAME)

sim: ## simulated histories with faults: SEEDS= how many, or SEED= one with all that happens in it
	cargo run --profile sim --locked --quiet -p simulation -- $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000))

sim-bugs: ## plants known bugs in a copy of this tree; the simulation must find each: BUG= for one
	tools/sim-bugs.sh

fuzz: ## inputs changed at random for all that reads what others send: TARGET= which, RUNS= how many
	cargo run --profile sim --locked --quiet -p fuzz -- --target "$(TARGET)" --runs $(or $(RUNS),1000000)

soak: ## the tests that take too long for every run
	cargo test --workspace --release --locked --no-fail-fast -- --ignored --skip kubernetes-long
	$(MAKE) e2e NAME=kubernetes-long
	$(MAKE) e2e NAME=spire
	$(MAKE) sim SEEDS=10000
	$(MAKE) sim-bugs
	$(MAKE) fuzz

envoy: ## fetch the Envoy of tests and demo, print its path
	@tools/envoy.sh

images: ## the images of all programs as an OCI archive, target/images.tar; needs no container engine
	cargo build --workspace --release --locked --bins
	deploy/images/build.py --programs target/release --envoy "$$(tools/envoy.sh)" target/images.tar
