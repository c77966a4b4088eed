# make demo    see it work: two private servers, an export, an import, and proof
# make test    everything that can be tested here; fetches what it needs
# make square  each version into each, four ways, the old ones too; writes docs/versions.md
# make bench   what it reaches, beside what the server allows (some minutes)
# make reply-faults  every command of every verb answered otherwise, all of it (an hour or two)
# make world   runs in the simulated world, by a fresh seed, for two minutes (WORLD='--seconds 3600')
# make lint    formatting, clippy, documentation, scripts
# make install the program, its man pages and completions, under PREFIX (and DESTDIR, for packages)
# make man     the man pages alone, into target/man
.PHONY: demo test square bench reply-faults world lint servers old-servers clean-servers build man completions install uninstall

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
# A program that is there already; without it, a release build.
BINARY ?= target/release/redis-migrate

bin = $(DESTDIR)$(PREFIX)/bin
man1 = $(DESTDIR)$(PREFIX)/share/man/man1
bash = $(DESTDIR)$(PREFIX)/share/bash-completion/completions/redis-migrate
zsh = $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_redis-migrate
fish = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/redis-migrate.fish

demo:
	tests/demo

# Most tests wait for servers most of the time: five at once keep two cores busy.
test: servers
	python=$$(tests/python) && PYTHON=$$python \
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-5} cargo test --workspace

square: servers old-servers
	VERSIONS_TABLE=docs/versions.md cargo test --test all the_full_square -- --ignored --nocapture

bench: servers
	cargo bench --bench throughput -- $(BENCH)

# REPLY_FAULTS=5000 runs so many cases only, REPLY_FAULTS_ONLY='import|SELECT|!close' only those
# with such names, REPLY_FAULTS_SEED=1 chooses and orders them. REPLY_FAULTS_DONE=FILE keeps the names
# of what is done, and passes over those: all of it can be run in several sittings. REPLY_FAULTS_LOG=FILE
# gets violations as they are found.
reply-faults: servers
	REPLY_FAULTS=$${REPLY_FAULTS:-all} cargo test --test reply_faults -- --nocapture --test-threads 1

# Everything in one thread under one seed, which is printed. What is wrong is made shorter and written
# to target/world. WORLD='--seed 7 --only copy --runs 1' runs one again, --show prints all of it.
# Each run makes its buffers anew: an allocator that keeps them halves the time.
world:
	MALLOC_MMAP_THRESHOLD_=67108864 MALLOC_TRIM_THRESHOLD_=536870912 MALLOC_TOP_PAD_=16777216 \
	$(CARGO) run --release --locked -p redis-migrate-world -- $(or $(WORLD),--seconds 120)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --exclude redis-migrate --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc -p redis-migrate --no-deps --document-private-items
	shellcheck .ci/run tests/demo tests/fetch-servers tests/python tests/world/prove

build:
ifeq ($(BINARY),target/release/redis-migrate)
	$(CARGO) build --release --locked --bin redis-migrate
endif

man: build
	rm -rf target/man
	$(BINARY) man-pages target/man

completions: build
	mkdir -p target/completions
	for shell in bash zsh fish; do \
	  $(BINARY) completions $$shell > target/completions/$$shell || exit 1; \
	done

install: man completions
	install -D -m 755 $(BINARY) $(bin)/redis-migrate
	install -d $(man1)
	install -m 644 target/man/*.1 $(man1)
	install -D -m 644 target/completions/bash $(bash)
	install -D -m 644 target/completions/zsh $(zsh)
	install -D -m 644 target/completions/fish $(fish)

uninstall:
	rm -f $(bin)/redis-migrate $(man1)/redis-migrate.1 $(man1)/redis-migrate-*.1 \
	  $(bash) $(zsh) $(fish)

# The servers of the matrix, unpacked under target/servers and installed nowhere.
servers:
	tests/fetch-servers

# Those that no other test demands: Redis 2.8 and 3.2, built from source, and Valkey 9.0.
old-servers:
	tests/fetch-servers --old

clean-servers:
	rm -rf target/servers
