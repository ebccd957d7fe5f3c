package tailcast_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The language of testdata/rfc6455, which its README.md explains.

// A scriptCase is one case of a script, ready to be played.
type scriptCase struct {
	at     string // file:line
	number string
	title  string
	limit  int64  // 0 = the hub's default
	offer  string // Sec-WebSocket-Extensions of the request
	answer string // and of the response, from a hub that compresses; "" = one that does not
	steps  []scriptStep
}

type scriptStep struct {
	at string
	do func(*player)
}

// A scriptFrame is what a > line sends, or a < line expects.
type scriptFrame struct {
	repeat  int
	raw     []byte // if set, all there is
	op      byte
	fin     bool
	rsv     byte // 4 = RSV1
	masked  bool
	mask    [4]byte
	claim   *uint64 // the length in the header, if it is not that of the payload
	width   int     // bytes of the extended length, −1 = as few as possible
	frag    int     // the payload goes out in fragments of so many bytes
	payload []scriptTerm
}

// A scriptTerm is one text, so many times.
type scriptTerm struct {
	times int
	text  string
}

const maxScriptPayload = 64 << 20

var scriptKinds = map[string]byte{
	"cont": 0, "text": 1, "binary": 2, "op3": 3, "op4": 4, "op5": 5, "op6": 6, "op7": 7,
	"close": 8, "ping": 9, "pong": 10, "op11": 11, "op12": 12, "op13": 13, "op14": 14, "op15": 15,
}

// bytes returns the payload.
func (f *scriptFrame) bytes() []byte {
	var b []byte
	for _, t := range f.payload {
		b = append(b, strings.Repeat(t.text, t.times)...)
	}
	return b
}

// append appends all that the frame puts on the wire.
func (f *scriptFrame) append(dst []byte) []byte {
	if f.raw != nil {
		return append(dst, slices.Repeat(f.raw, f.repeat)...)
	}
	payload := f.bytes()
	for range f.repeat {
		if f.frag == 0 {
			dst = f.appendOne(dst, f.op, f.fin, payload)
			continue
		}
		op, rest := f.op, payload
		for len(rest) > f.frag {
			dst = f.appendOne(dst, op, false, rest[:f.frag])
			op, rest = 0, rest[f.frag:]
		}
		dst = f.appendOne(dst, op, f.fin, rest)
	}
	return dst
}

func (f *scriptFrame) appendOne(dst []byte, op byte, fin bool, payload []byte) []byte {
	first, second, n := op|f.rsv<<4, byte(0), uint64(len(payload))
	if fin {
		first |= 0x80
	}
	if f.masked {
		second = 0x80
	}
	if f.claim != nil {
		n = *f.claim
	}
	width := f.width
	switch {
	case width >= 0:
	case n < 126:
		width = 0
	case n < 1<<16:
		width = 2
	default:
		width = 8
	}
	switch width {
	case 0:
		dst = append(dst, first, second|byte(n))
	case 2:
		dst = binary.BigEndian.AppendUint16(append(dst, first, second|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, second|127), n)
	}
	if f.masked {
		dst = append(dst, f.mask[:]...)
	}
	start := len(dst)
	dst = append(dst, payload...)
	if f.masked && f.mask != [4]byte{} {
		for i := range dst[start:] {
			dst[start+i] ^= f.mask[i%4]
		}
	}
	return dst
}

// A scriptTemplate is a case as it stands in the file, before {name} is replaced.
type scriptTemplate struct {
	line  int
	head  string
	each  []scriptEach
	lines []string
	at    []int
}

type scriptEach struct {
	name   string
	values []string
}

// parseScript reads a whole script. Its errors begin with file:line.
func parseScript(file, text string) ([]*scriptCase, error) {
	var cases []*scriptCase
	var open *scriptTemplate
	var each []scriptEach
	lets := make(map[string]string)
	flush := func() error {
		if open == nil {
			return nil
		}
		made, err := open.expand(file, lets)
		cases, open = append(cases, made...), nil
		return err
	}
	for i, line := range strings.Split(text, "\n") {
		fail := func(format string, args ...any) ([]*scriptCase, error) {
			return nil, fmt.Errorf("%s:%d: "+format, append([]any{file, i + 1}, args...)...)
		}
		line = strings.TrimSpace(line)
		verb, rest, _ := strings.Cut(line, " ")
		switch rest = strings.TrimSpace(rest); {
		case line == "" || line[0] == '#':
		case verb == "let" || verb == "each":
			if err := flush(); err != nil {
				return nil, err
			}
			rest, err := substitute(rest, lets)
			if err != nil {
				return fail("%v", err)
			}
			words, err := splitWords(rest)
			if err != nil {
				return fail("%v", err)
			}
			if len(words) < 2 || !scriptName.MatchString(words[0]) {
				return fail("%s wants a name and a value", verb)
			}
			if verb == "let" {
				lets[words[0]] = strings.Join(words[1:], " ")
				continue
			}
			values, err := ranges(words[1:])
			if err != nil {
				return fail("%v", err)
			}
			if len(each) > 0 && len(each[0].values) != len(values) {
				return fail("each %s has %d values, each %s above it has %d", words[0], len(values), each[0].name, len(each[0].values))
			}
			each = append(each, scriptEach{words[0], values})
		case verb == "case":
			if err := flush(); err != nil {
				return nil, err
			}
			open, each = &scriptTemplate{line: i + 1, head: rest, each: each}, nil
		case open == nil || len(each) > 0:
			return fail("%s stands before the case that it belongs to", verb)
		default:
			open.lines, open.at = append(open.lines, line), append(open.at, i+1)
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	if len(each) > 0 {
		return nil, fmt.Errorf("%s: each %s has no case", file, each[0].name)
	}
	seen := make(map[string]string)
	for _, c := range cases {
		if other := seen[c.number]; other != "" {
			return nil, fmt.Errorf("%s: case %s is at %s too", c.at, c.number, other)
		}
		seen[c.number] = c.at
	}
	return cases, nil
}

var (
	scriptName  = regexp.MustCompile(`^[a-z][a-z0-9]*$`)
	scriptHole  = regexp.MustCompile(`\{[a-z][a-z0-9]*\}`)
	scriptRange = regexp.MustCompile(`^(\d+)\.\.(\d+)$`)
	scriptCount = regexp.MustCompile(`^(\d+)\*"`)
)

// substitute puts values in the place of {name}.
func substitute(line string, values map[string]string) (string, error) {
	var err error
	line = scriptHole.ReplaceAllStringFunc(line, func(hole string) string {
		v, ok := values[hole[1:len(hole)-1]]
		if !ok {
			err = fmt.Errorf("%s is not known here", hole)
		}
		return v
	})
	return line, err
}

// ranges writes 3..7 out.
func ranges(words []string) (values []string, err error) {
	for _, w := range words {
		m := scriptRange.FindStringSubmatch(w)
		if m == nil {
			values = append(values, w)
			continue
		}
		from, _ := strconv.Atoi(m[1])
		to, _ := strconv.Atoi(m[2])
		if from > to || to-from > 10_000 {
			return nil, fmt.Errorf("%s is not a range", w)
		}
		for ; from <= to; from++ {
			values = append(values, strconv.Itoa(from))
		}
	}
	return values, nil
}

// splitWords splits at spaces outside of quotes. The quotes stay.
func splitWords(line string) (words []string, err error) {
	for line = strings.TrimLeft(line, " \t"); line != ""; line = strings.TrimLeft(line, " \t") {
		end, quoted := 0, false
		for ; end < len(line) && (quoted || line[end] != ' ' && line[end] != '\t'); end++ {
			switch {
			case line[end] == '"':
				quoted = !quoted
			case line[end] == '\\' && quoted:
				end++
			}
		}
		if quoted || end > len(line) {
			return nil, fmt.Errorf("a quote is not closed: %s", line)
		}
		words, line = append(words, line[:end]), line[end:]
	}
	return words, nil
}

// expand makes the cases of a template: one, or one for each value.
func (tm *scriptTemplate) expand(file string, lets map[string]string) (cases []*scriptCase, err error) {
	count := 1
	if len(tm.each) > 0 {
		count = len(tm.each[0].values)
	}
	for i := range count {
		values := make(map[string]string)
		for k, v := range lets {
			values[k] = v
		}
		for _, e := range tm.each {
			values[e.name] = e.values[i]
		}
		c := &scriptCase{at: fmt.Sprintf("%s:%d", file, tm.line)}
		head, err := substitute(tm.head, values)
		if err != nil {
			return nil, fmt.Errorf("%s: %v", c.at, err)
		}
		c.number, c.title, _ = strings.Cut(head, " ")
		if strings.Contains(c.number, "#") && len(tm.each) == 0 || c.number == "" || c.title == "" {
			return nil, fmt.Errorf("%s: case wants a number, with a # only after an each, and a title", c.at)
		}
		c.number = strings.Replace(c.number, "#", strconv.Itoa(i+1), 1)
		for j, line := range tm.lines {
			at := fmt.Sprintf("%s:%d", file, tm.at[j])
			if line, err = substitute(line, values); err == nil {
				err = c.parseLine(at, line)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %v", at, err)
			}
		}
		cases = append(cases, c)
	}
	return cases, nil
}

func (c *scriptCase) parseLine(at, line string) error {
	words, err := splitWords(line)
	if err != nil {
		return err
	}
	verb, args := words[0], words[1:]
	step := func(do func(p *player)) { c.steps = append(c.steps, scriptStep{at, do}) }
	number := func(i int, least int64) (n int64) {
		if i >= len(args) {
			err = fmt.Errorf("%s wants a number", verb)
		} else if n, err = strconv.ParseInt(args[i], 10, 64); err != nil || n < least {
			err = fmt.Errorf("%s wants a number of at least %d, not %s", verb, least, args[i])
		}
		return n
	}
	period := func(i int) (d time.Duration) {
		if i >= len(args) {
			err = fmt.Errorf("%s wants a time", verb)
		} else if d, err = time.ParseDuration(args[i]); err != nil || d < 0 {
			err = fmt.Errorf("%s wants a time, not %s", verb, args[i])
		}
		return d
	}
	most := 1
	switch verb {
	case ">", "<", "<?", "<+":
		most = len(args)
		f, eof, ferr := parseFrame(args, verb != ">")
		switch err = ferr; {
		case err != nil:
		case verb == ">":
			step(func(p *player) { p.pending = f.append(p.pending) })
		case eof:
			step((*player).wantEOF)
		case f.op == 8:
			step(func(p *player) { p.wantClose(f.bytes()) })
		default:
			step(func(p *player) { p.want(verb, f) })
		}
	case "flush":
		most = 0
		step((*player).flush)
	case "chop":
		most = 2
		n := number(0, 0)
		var pause time.Duration
		if err == nil && len(args) > 1 {
			pause = period(1)
		}
		step(func(p *player) { p.flush(); p.chop, p.pause = int(n), pause })
	case "quiet":
		d := period(0)
		step(func(p *player) { p.quiet(d) })
	case "wait":
		d := period(0)
		step(func(p *player) { p.flush(); time.Sleep(d) })
	case "drop":
		most = 0
		step((*player).drop)
	case "hub-closes":
		most = len(args)
		n := number(0, 0)
		if err == nil {
			var reason []scriptTerm
			reason, err = parsePayload(args[1:])
			step(func(p *player) { p.hubCloses(int(n), string((&scriptFrame{payload: reason}).bytes())) })
		}
	case "cause":
		n := number(0, 0)
		step(func(p *player) { p.cause = int(n) })
	case "limit":
		c.limit = number(0, 1)
	case "offer", "answer":
		most = len(args)
		var terms []scriptTerm
		if terms, err = parsePayload(args); err == nil {
			value := string((&scriptFrame{payload: terms}).bytes())
			if verb == "offer" {
				c.offer = value
			} else {
				c.answer = value
			}
		}
	default:
		return fmt.Errorf("unknown word %s", verb)
	}
	if err == nil && len(args) > most {
		err = fmt.Errorf("%s is too much", args[most])
	}
	return err
}

// parseFrame parses what stands behind > and <.
func parseFrame(args []string, expected bool) (f *scriptFrame, eof bool, err error) {
	f = &scriptFrame{repeat: 1, fin: true, masked: true, mask: [4]byte{0x37, 0xfa, 0x21, 0x3d}, width: -1}
	if len(args) >= 2 && args[0] == "repeat" {
		if f.repeat, err = strconv.Atoi(args[1]); err != nil || f.repeat < 1 || f.repeat > 1<<20 {
			return nil, false, fmt.Errorf("repeat wants a number from 1 to %d, not %s", 1<<20, args[1])
		}
		args = args[2:]
	}
	if len(args) == 0 {
		return nil, false, fmt.Errorf("what kind of frame?")
	}
	kind := args[0]
	args = args[1:]
	if kind == "eof" && expected && len(args) == 0 {
		return f, true, nil
	}
	if kind == "raw" && !expected {
		f.raw, err = hex.DecodeString(strings.Join(args, ""))
		if err == nil && len(f.raw) == 0 {
			err = fmt.Errorf("raw wants bytes in hexadecimal")
		}
		return f, false, err
	}
	op, ok := scriptKinds[kind]
	if !ok {
		return nil, false, fmt.Errorf("unknown kind of frame: %s", kind)
	}
	f.op = op
	for ; len(args) > 0 && !strings.Contains(args[0], `"`); args = args[1:] {
		name, value, isFlag := strings.Cut(args[0], "=")
		switch {
		case isFlag && !expected:
			err = f.flag(name, value)
		case op == 8 && len(f.payload) == 0:
			var code uint64
			if code, err = strconv.ParseUint(args[0], 10, 16); err == nil {
				f.payload = []scriptTerm{{1, string(binary.BigEndian.AppendUint16(nil, uint16(code)))}}
			}
		default:
			err = fmt.Errorf("%s has no meaning here", args[0])
		}
		if err != nil {
			return nil, false, err
		}
	}
	payload, err := parsePayload(args)
	f.payload = append(f.payload, payload...)
	return f, false, err
}

func (f *scriptFrame) flag(name, value string) (err error) {
	var n uint64
	if name != "mask" {
		if n, err = strconv.ParseUint(value, 0, 64); err != nil {
			return fmt.Errorf("%s=%s: not a number", name, value)
		}
	}
	ok := true
	switch name {
	case "fin":
		f.fin, ok = n == 1, n <= 1
	case "rsv":
		f.rsv, ok = byte(n), n <= 7
	case "len":
		f.claim = &n
	case "width":
		f.width, ok = int(n), n == 0 || n == 2 || n == 8
	case "frag":
		f.frag, ok = int(n), n > 0 && n <= maxScriptPayload
	case "mask":
		if f.masked = value != "none"; f.masked {
			var b []byte
			b, err = hex.DecodeString(value)
			ok = err == nil && len(b) == 4
			copy(f.mask[:], b)
		}
	default:
		return fmt.Errorf("unknown flag %s", name)
	}
	if !ok {
		return fmt.Errorf("%s=%s: no such value", name, value)
	}
	return nil
}

// parsePayload parses texts like "a\xff" and 125*"*", which are put together.
func parsePayload(words []string) (terms []scriptTerm, err error) {
	total := 0
	for _, w := range words {
		t := scriptTerm{times: 1}
		quoted := w
		if m := scriptCount.FindStringSubmatch(w); m != nil {
			if t.times, err = strconv.Atoi(m[1]); err != nil || t.times > maxScriptPayload {
				return nil, fmt.Errorf("%s is too much", w)
			}
			quoted = w[len(m[1])+1:]
		}
		if t.text, err = strconv.Unquote(quoted); err != nil || quoted[0] != '"' {
			return nil, fmt.Errorf("%s is not a text in quotes", w)
		}
		if total += t.times * len(t.text); total > maxScriptPayload {
			return nil, fmt.Errorf("%s is too much", w)
		}
		terms = append(terms, t)
	}
	return terms, nil
}

func TestScriptErrorsNameTheLine(t *testing.T) {
	for script, want := range map[string]string{
		"> text \"x\"":                            `s:1: > stands before the case that it belongs to`,
		"case 1":                                  `s:1: case wants a number, with a # only after an each, and a title`,
		"case 1.# x":                              `s:1: case wants a number, with a # only after an each, and a title`,
		"case 1 x\n\n# y\n> txt":                  `s:4: unknown kind of frame: txt`,
		"case 1 x\n>":                             `s:2: what kind of frame?`,
		"case 1 x\n> text \"x":                    `s:2: a quote is not closed: "x`,
		"case 1 x\n> text \"\\q\"":                `s:2: "\q" is not a text in quotes`,
		"case 1 x\n> text 99999999*\"\"":          `s:2: 99999999*"" is too much`,
		"case 1 x\n> text 9*\"x\" 67108856*\"x\"": `s:2: 67108856*"x" is too much`,
		"case 1 x\n> text fin=2":                  `s:2: fin=2: no such value`,
		"case 1 x\n> text mask=00":                `s:2: mask=00: no such value`,
		"case 1 x\n> text colour=2":               `s:2: unknown flag colour`,
		"case 1 x\n> text rsv=x":                  `s:2: rsv=x: not a number`,
		"case 1 x\n> text x":                      `s:2: x has no meaning here`,
		"case 1 x\n< text fin=0":                  `s:2: fin=0 has no meaning here`,
		"case 1 x\n< raw 81":                      `s:2: unknown kind of frame: raw`,
		"case 1 x\n> raw 8":                       `s:2: encoding/hex: odd length hex string`,
		"case 1 x\n> repeat 0 ping":               `s:2: repeat wants a number from 1 to 1048576, not 0`,
		"case 1 x\nquiet":                         `s:2: quiet wants a time`,
		"case 1 x\nquiet 1":                       `s:2: quiet wants a time, not 1`,
		"case 1 x\nchop -1":                       `s:2: chop wants a number of at least 0, not -1`,
		"case 1 x\nchop 1 1s 1":                   `s:2: 1 is too much`,
		"case 1 x\ndrop it":                       `s:2: it is too much`,
		"case 1 x\nshout":                         `s:2: unknown word shout`,
		"case 1 x\n> text {y}":                    `s:2: {y} is not known here`,
		"let x":                                   `s:1: let wants a name and a value`,
		"each n 9..1":                             `s:1: 9..1 is not a range`,
		"each n 1 2\neach m 1":                    `s:2: each m has 1 values, each n above it has 2`,
		"each n 1 2":                              `s: each n has no case`,
		"case 1 x\ncase 2 y\ncase 1 z":            `s:3: case 1 is at s:1 too`,
	} {
		if _, err := parseScript("s", script); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", script, err, want)
		}
	}
}

func FuzzScript(f *testing.F) {
	f.Add("let a \"\\xff\"\neach n 1..3 7\ncase 1.# {n} of {a}\nlimit 5\noffer x; y=1\n> repeat 2 text fin=0 rsv=4 mask=none {n}*\"a b\" {a}\n<+ pong \"x\"\n> close 1000 \"x\"\n< eof")
	f.Add("case 1 x\nchop 1 1s\n> raw 81 85\nquiet 1s\nhub-closes 4000 \"x\"\ncause 1\ndrop")
	f.Fuzz(func(t *testing.T, script string) {
		if _, err := parseScript("file", script); err != nil && !strings.HasPrefix(err.Error(), "file:") {
			t.Errorf("the error names no place: %v", err)
		}
	})
}
