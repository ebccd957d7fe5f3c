# What .ci/run and .ci/soak share. A step is a function that fails where a command in it fails.

passed=0 failed=0 began=$SECONDS

step() { # step NAME COMMAND...
	local name=$1 rc start=$SECONDS
	shift
	printf '\n=== %s\n' "$name"
	set +e
	(set -e; "$@")
	rc=$?
	set -e
	count "$rc" "$name" $((SECONDS - start))
}

count() { # count STATUS NAME SECONDS
	if (($1 == 0)); then
		passed=$((passed + 1))
		printf -- '--- ok: %s (%d s)\n' "$2" "$3"
	else
		failed=$((failed + 1))
		printf -- '--- FAILED with %d: %s (%d s)\n' "$1" "$2" "$3"
	fi
}

# beside runs a step beside others, as many at a time as there are processors. What it has said is printed when it has ended; together
# waits for all of them.
declare -A names=() logs=() starts=() # by process
beside() { # beside NAME COMMAND...
	while ((${#names[@]} >= $(nproc))); do ended; done
	local log
	log=$(mktemp)
	set -m # a process group of its own, so that all of it can be ended
	(set -e; "${@:2}") >"$log" 2>&1 </dev/null &
	set +m
	names[$!]=$1 logs[$!]=$log starts[$!]=$SECONDS
}

together() { while ((${#names[@]})); do ended; done; }

ended() {
	local pid rc=0
	wait -n -p pid "${!names[@]}" || rc=$?
	printf '\n=== %s\n' "${names[$pid]}"
	cat "${logs[$pid]}"
	rm "${logs[$pid]}"
	count "$rc" "${names[$pid]}" $((SECONDS - starts[$pid]))
	unset "names[$pid]" "logs[$pid]" "starts[$pid]"
}

# Who is interrupted leaves nothing behind.
trap 'for pid in "${!names[@]}"; do kill -- -"$pid" || true; rm -f "${logs[$pid]}"; done' EXIT

summary() {
	printf '\n%d passed, %d failed\n' "$passed" "$failed"
	((failed == 0))
}

# components installs what is missing of the programs that the tests drive. Only that needs root, and the network.
components() {
	local packages=()
	have() { command -v "$1" >/dev/null || packages+=("${@:2}"); }
	have logrotate logrotate
	have chromium chromium
	have curl curl ca-certificates
	have nginx nginx # what these two start as services is in nobody's way: the tests start their own, on free ports
	have haproxy haproxy
	have cc gcc libc6-dev # the race detector needs cgo
	have ip iproute2 # a host that is cut off, in a network namespace
	PATH=$PATH:/usr/sbin have mosquitto mosquitto
	PATH=$PATH:/usr/lib/rabbitmq/bin have rabbitmq-server rabbitmq-server
	if ((${#packages[@]})); then
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
	fi
	(cd itest && npm ci --no-audit --no-fund --loglevel=error)
	go version
	echo "node $(node --version), $(logrotate --version 2>&1 | head -1), $(curl --version | head -1 | cut -d' ' -f1,2), $(chromium --version 2>/dev/null)"
	echo "$(nginx -v 2>&1), $(haproxy -v | head -1)"
}

# nested prints the directories of the modules below this one.
nested() { find . -mindepth 2 -name go.mod -not -path '*/node_modules/*' -printf '%h\n' | sort; }

tidy() {
	go mod tidy -diff
	go mod verify
}

# fuzz runs every fuzz target for the given time, eight at a time for each processor. Each package is built once. A target has its time
# however much of it there is a processor for it, so what runs beside goes first.
fuzz() { # fuzz TIME
	local dir targets
	dir=$(mktemp -d)
	trap "rm -rf '$dir'" EXIT # of the step
	targets=$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' ./... | while read -r package at; do
		grep -qs '^func Fuzz' "$at"/*_test.go || continue
		go test -c -vet=off -ldflags='-s -w' -fuzz=. -o "$dir/${package//\//_}" "$package" || exit # set -e does not count in here
		for target in $("$dir/${package//\//_}" -test.list '^Fuzz'); do
			echo "$package $at $dir/${package//\//_} $target"
		done
	done)
	echo "$(wc -l <<<"$targets") targets, $1 each"
	FUZZ_CACHE=$(go env GOCACHE)/fuzz
	export FUZZ_CACHE
	export -f fuzz_one
	nice -n 10 xargs -P $((8 * $(nproc))) -L 1 bash -c 'fuzz_one "$@"' fuzz "$1" <<<"$targets"
}

# fuzz_one runs one target. The fuzzer sometimes fails at its own deadline, without any input to blame (golang/go#75804):
# that, and nothing else, is tried once more.
fuzz_one() { # fuzz_one TIME PACKAGE DIRECTORY BINARY TARGET
	local out
	cd "$3"
	for attempt in 1 2; do
		if out=$("$4" -test.run '^$' -test.fuzz "^$5\$" -test.fuzztime "$1" -test.parallel 1 -test.fuzzcachedir "$FUZZ_CACHE/$2" 2>&1); then
			printf '%s %s: %s\n' "$2" "$5" "$(grep -o 'execs: [0-9]*' <<<"$out" | tail -1)"
			return
		fi
		if ((attempt == 2)) || ! grep -q 'context deadline exceeded' <<<"$out" || grep -q 'Failing input\|panic\|fatal error' <<<"$out"; then
			break
		fi
	done
	printf '%s %s FAILED\n%s\n' "$2" "$5" "$out"
	return 1
}
